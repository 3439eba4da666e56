"""Adapters of PEFT and of mlx-lm: their tensors' bytes and their configuration's keys."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.adapters.mlx_lm import load_mlx_lm, save_mlx_lm
from mlx_yoda.adapters.peft import Adapter, load_adapter, save_adapter
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.recipes.respond import read_adapter

from .conftest import fuzzing, junk, mutated, survives

PATHS = ["model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.down_proj"]
LORA = LoraConfig(r=2, target_modules=["qkv_proj", "down_proj"], rank_pattern={"down_proj": 3})
LOADERS = {"PEFT": load_adapter, "mlx-lm": load_mlx_lm}
TENSORS = {"PEFT": "adapter_model.safetensors", "mlx-lm": "adapters.safetensors"}


@pytest.fixture(scope="module", params=["PEFT", "mlx-lm"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path: Path, kind: str) -> Path:
    tensors = {
        path: (mx.ones((r, 6)), mx.ones((4, r))) for path, r in zip(PATHS, (2, 3), strict=True)
    }
    if kind == "PEFT":
        save_adapter(tmp_path, tensors, LORA, base_model_name_or_path="a/base")
    else:
        save_mlx_lm(tmp_path, Adapter(LORA, tensors, "a/base"))
    return tmp_path


def check(folder: Path, kind: str) -> None:
    adapter = survives(f"{kind} adapters", lambda: LOADERS[kind](folder))
    survives(f"{kind} adapters", lambda: read_adapter(str(folder)), again=True)
    if adapter is None:
        return
    assert adapter.tensors
    for a, b in adapter.tensors.values():
        assert a.dtype == b.dtype == mx.float32
        assert a.shape[0] == b.shape[1]
        assert np.isfinite(np.array(a)).all()
        assert np.isfinite(np.array(b)).all()
    assert isinstance(adapter.base_model_name_or_path, str | None)
    assert isinstance(adapter.revision, str | None)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["tensors", "configuration"])
def test_bytes(folder: Path, kind: str, file: str) -> None:
    path = folder / (TENSORS[kind] if file == "tensors" else "adapter_config.json")

    @fuzzing
    @given(content=mutated(st.just(path.read_bytes())))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        check(folder, kind)

    run()


def test_keys(folder: Path, kind: str) -> None:
    path = folder / "adapter_config.json"
    right = json.loads(path.read_text())
    names = st.sampled_from(sorted([*right, "exclude_modules", "use_dora", "layers_pattern"]))
    nested = "peft_config" if kind == "mlx-lm" else None
    inner = st.sampled_from(sorted(right[nested])) if nested else names

    @fuzzing
    @given(
        values=st.dictionaries(names | st.text(max_size=5), junk, max_size=2),
        more=st.dictionaries(inner, junk | st.integers(-1, 4), max_size=2),
    )
    def run(values: dict[str, Any], more: dict[str, Any]) -> None:
        keys = right | values
        if nested and isinstance(keys[nested], dict):
            keys[nested] = keys[nested] | more
        elif not nested:
            keys |= more
        path.write_text(json.dumps(keys))
        check(folder, kind)

    run()


@pytest.mark.slow
def test_tensors(folder: Path, kind: str) -> None:
    """Headers that are whole and data that fit them, with other names, shapes and numbers."""
    import safetensors.numpy

    path = folder / TENSORS[kind]
    right = safetensors.numpy.load_file(path)
    floats = st.floats(width=32) | st.just(1.0)
    arrays = st.tuples(
        st.lists(st.integers(0, 6), max_size=3),
        st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.bool_]),
        floats,
    )

    @fuzzing
    @given(
        changed=st.dictionaries(st.sampled_from(sorted(right)) | st.text(max_size=9), arrays),
        dropped=st.sets(st.sampled_from(sorted(right)), max_size=1),
    )
    def run(changed: dict[str, Any], dropped: set[str]) -> None:
        tensors = {name: array for name, array in right.items() if name not in dropped}
        with np.errstate(all="ignore"):
            for name, (shape, dtype, number) in changed.items():
                tensors[name] = np.full(shape, np.nan_to_num(number) if dtype in (
                    np.int8, np.bool_) else number).astype(dtype)  # fmt: skip
        try:
            content = safetensors.numpy.save(tensors)
        except (UnicodeEncodeError, ValueError):
            return
        path.write_bytes(content)
        check(folder, kind)

    run()
