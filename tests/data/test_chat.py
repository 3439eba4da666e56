import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer, LlamaTokenizer

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import Conversation, conversations
from mlx_yoda.data.packing import pack
from mlx_yoda.data.rows import Row
from mlx_yoda.data.sources import load_splits
from mlx_yoda.errors import UserError

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=5),
    lambda v: (
        st.lists(v, max_size=3)
        | st.fixed_dictionaries(
            {}, optional={"role": st.sampled_from(["user", "assistant", "system", 3]), "content": v}
        )
    ),
)
columns = ["messages", "prompt", "completion", "sentence", "translation", "text", "\ud800"]


def pair(prompt: str, completion: str, place: str = "x:1") -> Conversation:
    messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": completion})
    return Conversation(messages, None, place, context=1)


def plain(text: str) -> Conversation:
    return Conversation(None, text, "x:2")


@pytest.mark.parametrize(("train_on", "first"), [("completions", len("<hi<<")), ("all", 1)])
def test_completions_or_all(
    tokenizer: Any, train_on: Literal["completions", "all"], first: int
) -> None:
    encoded = encode([pair("hi", "ho")], tokenizer, train_on=train_on, max_length=99)
    (example,) = encoded.examples
    whole = "<|user|>hi<|end|><|assistant|>ho<|end|><|endoftext|>"
    assert tokenizer.decode(example.tokens) == whole
    assert example.tokens.dtype == np.int32
    np.testing.assert_array_equal(example.supervised, np.arange(9) >= first)
    assert (encoded.truncated, encoded.longest, encoded.tokens) == (0, 9, 9)
    assert encoded.supervised_tokens == 9 - first


@pytest.mark.parametrize("train_on", ["completions", "all"])
def test_plain_text_is_all_supervised_and_ends(
    tokenizer: Any, train_on: Literal["completions", "all"]
) -> None:
    texts = [plain("hi"), plain("hi<|endoftext|>"), pair("a", "b"), plain("x")]
    examples = encode(texts, tokenizer, train_on=train_on, max_length=None).examples
    decoded = [tokenizer.decode(e.tokens) for e in examples]
    assert decoded[:2] == ["hi<|endoftext|>"] * 2
    assert decoded[3] == "x<|endoftext|>"
    assert examples[0].supervised.tolist() == [False, True, True]
    assert examples[0].whole


def test_plain_text_begins_as_the_tokenizer_wants_it(make_tokenizer: Callable[..., Any]) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    bos = tokenizer.convert_tokens_to_ids("<|user|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", bos)]
    )
    text, chat = encode(
        [plain("hi"), pair("hi", "ho")], tokenizer, train_on="all", max_length=None
    ).examples
    assert tokenizer.decode(text.tokens) == "<|user|>hi<|endoftext|>"
    assert tokenizer.decode(chat.tokens[:2]) == "<|user|>h"  # the template's own, and only that


def test_longer_rows_are_cut_and_counted(tokenizer: Any) -> None:
    rows = [pair("hi", "ho"), pair("hi", "a longer answer"), plain("a longer text")]
    encoded = encode(rows, tokenizer, train_on="completions", max_length=9)
    assert [len(e.tokens) for e in encoded.examples] == [9, 9, 9]
    assert encoded.truncated == 2
    assert encoded.longest == len("<hi<<a longer answer<<")
    whole = encode(rows, tokenizer, train_on="completions", max_length=None)
    assert whole.truncated == 0
    for cut, example in zip(encoded.examples, whole.examples, strict=True):
        np.testing.assert_array_equal(cut.tokens, example.tokens[:9])
        np.testing.assert_array_equal(cut.supervised, example.supervised[:9])


@pytest.mark.parametrize(
    ("conversation", "max_length", "message"),
    [
        (pair("hi", "ho", "y:7"), 5, "y:7: the prompt fills all of the 5 tokens to which the"),
        (
            Conversation(({"role": "user", "content": "hi"},), None, "y:7"),
            99,
            "y:7: nothing to learn from",
        ),
        (Conversation(None, "", "y:7"), 99, "y:7: nothing to learn from"),
    ],
)
def test_a_row_without_targets_is_an_error(
    tokenizer: Any, conversation: Conversation, max_length: int, message: str
) -> None:
    with pytest.raises(UserError) as error:
        encode(
            [plain("hi"), conversation], tokenizer, train_on="completions", max_length=max_length
        )
    assert str(error.value).startswith(message)


def test_no_conversations_are_no_examples(tokenizer: Any) -> None:
    encoded = encode([], tokenizer, train_on="all", max_length=4)
    assert (encoded.examples, encoded.truncated, encoded.longest) == ([], 0, 0)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(columns), junk, min_size=1), max_size=3),
    train_on=st.sampled_from(["completions", "all"]),
)
def test_junk_gives_examples_or_one_sentence(
    tokenizer: Any, rows: list[dict[str, Any]], train_on: Literal["completions", "all"]
) -> None:
    try:
        read = conversations([Row(row, "x:1") for row in rows], DataConfig())
        encoded = encode(read, tokenizer, train_on=train_on, max_length=16)
    except UserError as error:
        assert str(error).encode()  # can be printed
    else:
        assert len(encoded.examples) == len(rows)
        assert all(e.supervised.any() and not e.supervised[0] for e in encoded.examples)


def yoda(shared: Path) -> list[Conversation]:
    config = DataConfig(
        dataset_name=str(shared / "data" / "yoda_sentences" / "yoda_sentences.csv"),
        prompt_column="sentence",
        completion_column="translation_extra",
    )
    return conversations(load_splits(config, seed=0).train, config)


# Transformers knows that the class which Phi-3's tokenizer_config.json names (LlamaTokenizer) is
# the wrong one, and where the model's config.json is by reads tokenizer.json as it stands. The
# figures of the tokenizer's files alone differ by the space before a turn's first word.
@pytest.mark.parametrize(
    ("load", "tokens", "longest", "rows"),
    [(AutoTokenizer, 21_801, 48, 340), (LlamaTokenizer, 22_018, 49, 344)],
    ids=["as the model loads it", "its files alone"],
)
def test_the_notebooks_220_steps(
    shared: Path, load: Any, tokens: int, longest: int, rows: int
) -> None:
    tokenizer = load.from_pretrained(shared / "data" / "phi-3-mini-4k-instruct")
    encoded = encode(yoda(shared), tokenizer, train_on="all", max_length=None)
    assert (len(encoded.examples), encoded.tokens, encoded.longest) == (720, tokens, longest)
    packed = pack(encoded.examples, "concat", 64)
    assert len(packed) == rows
    assert sum(int(row.supervised.sum()) for row in packed) == rows * 63
    assert math.ceil(len(packed) / 16) * 10 == 220


@pytest.mark.slow
def test_phi3_learns_the_answers_only(shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "data" / "phi-3-mini-4k-instruct")
    read = yoda(shared)
    direct = encode(read, tokenizer, train_on="completions", max_length=64)
    wrapped = encode(read, TokenizerWrapper(tokenizer), train_on="completions", max_length=64)
    for conversation, example, other in zip(read, direct.examples, wrapped.examples, strict=True):
        assert conversation.messages
        answer = conversation.messages[1]["content"]
        learned = tokenizer.decode(example.tokens[example.supervised])
        assert learned == f"{answer}<|end|><|endoftext|>"
        np.testing.assert_array_equal(example.tokens, other.tokens)
        np.testing.assert_array_equal(example.supervised, other.supervised)
