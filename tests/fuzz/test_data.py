"""Data files, whole or in pieces, of every format, down to token ids."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import conversations
from mlx_yoda.data.formats import read_rows
from mlx_yoda.data.rows import Row
from mlx_yoda.model.load import resolve

from .conftest import fuzzing, junk, mutated, survives

CHAT = [{"role": "user", "content": "hi<|end|>"}, {"role": "assistant", "content": "ho ü"}]
ROWS = [{"prompt": "a, b", "completion": "c\nd"}, {"prompt": "é", "completion": "<s>"}]


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


WHOLE = {
    ".jsonl": [
        "\n".join(map(json.dumps, ROWS)).encode(),
        json.dumps({"messages": CHAT}).encode(),
        json.dumps({"text": "x\u2028y"}, ensure_ascii=False).encode(),
    ],
    ".json": [json.dumps(ROWS).encode(), json.dumps([{"messages": CHAT}]).encode()],
    ".csv": [b'prompt,completion\n"a, b","c\nd"\n\xc3\xa9,"<s>"\n', b"\xef\xbb\xbftext\r\nx\r\n"],
    ".parquet": [parquet(ROWS), parquet([{"messages": CHAT}] * 9, compression="zstd")],
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve("demo"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("data")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WHOLE)
def test_bytes(folder: Any, tokenizer: Any, suffix: str) -> None:
    file = folder / f"fuzz{suffix}"

    @fuzzing
    @given(content=mutated(st.sampled_from(WHOLE[suffix])) | st.binary(max_size=60))
    def run(content: bytes) -> None:
        file.write_bytes(content)

        def tokens() -> Any:
            rows = conversations(read_rows(file), DataConfig())
            return encode(rows, tokenizer, train_on="completions", max_length=64)

        survives(f"{suffix} files", tokens)

    run()


columns = ["messages", "prompt", "completion", "sentence", "translation", "text", "\x1b"]
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]) | junk},
        optional={"content": st.text(max_size=9) | st.sampled_from(["<|end|>", "<|user|>"]) | junk},
    )
    | junk,
    max_size=4,
)


@pytest.mark.slow
@fuzzing
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(columns), st.text(max_size=9) | messages | junk), max_size=3
    ),
    train_on=st.sampled_from(["completions", "all"]),
)
def test_rows(tokenizer: Any, rows: list[dict[str, Any]], train_on: Any) -> None:
    def tokens() -> Any:
        read = conversations([Row(row, "x:1") for row in rows], DataConfig())
        return encode(read, tokenizer, train_on=train_on, max_length=32)

    encoded = survives("rows", tokens)
    if encoded is not None:
        assert all(example.supervised.any() for example in encoded.examples)
