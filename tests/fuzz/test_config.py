"""Configuration files."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config import Config
from mlx_yoda.config.keys import keys
from mlx_yoda.config.parse import load_config, to_yaml

from .conftest import fuzzing, junk, mutated, survives

WHOLE = [
    to_yaml(Config()).encode(),
    b"lora:\n  r: 8\n  target_modules: [qkv_proj, 'o_proj']\n  rank_pattern: {o_proj: 4}\n",
    b"train:\n  learning_rate: 1e-5 # so\n  max_steps: &a 3\n  seed: *a\n",
    b"%YAML 1.1\n---\nlora: !!map {r: |\n  8\n  }\n...\n",
]
structured = st.dictionaries(
    st.sampled_from(sorted(keys())) | st.text(max_size=8).map("lora.{}".format),
    junk | st.sampled_from(["1", "0.5", "true", "auto"]),
    max_size=6,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("config") / "fuzz.yaml"


def read(file: Any, content: bytes) -> None:
    file.write_bytes(content)
    config = survives("configurations", lambda: load_config(file))
    if config is not None:
        file.write_text(to_yaml(config))
        assert load_config(file) == config


@pytest.mark.slow
@fuzzing
@given(content=mutated(st.sampled_from(WHOLE)) | st.binary(max_size=100))
def test_bytes(file: Any, content: bytes) -> None:
    read(file, content)


@pytest.mark.slow
@fuzzing
@given(values=structured)
def test_values(file: Any, values: dict[str, Any]) -> None:
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, name = path.partition(".")
        sections.setdefault(section, {})[name] = value
    try:
        content = yaml.safe_dump(sections, allow_unicode=True).encode()
    except UnicodeEncodeError:  # half a surrogate pair is in no file
        return
    read(file, content)


@fuzzing
@given(path=st.sampled_from(sorted(keys())) | st.text(max_size=9), value=st.text(max_size=20))
def test_options(path: str, value: str) -> None:
    survives("options", lambda: load_config(None, [f"{path}={value}"]))
    survives("options", lambda: load_config(None, options={path: value}), again=True)
