"""Checkpoints: damaged, and damaged with a seal that fits the damage, as a stranger's would."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import Identity, load_checkpoint, save_checkpoint
from mlx_yoda.train.integrity import SEAL, resealed
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.step import State

from .conftest import fuzzing, junk, mutated, survives

ADAPTER = {"model.layers.0.mlp.down_proj": {"lora_A": mx.ones((2, 6)), "lora_B": mx.ones((4, 2))}}
IDENTITY = Identity(
    LoraConfig(r=2, target_modules=["down_proj"]), "a/base", None, {"seed": 1}, "phi3"
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path, State.fresh(ADAPTER), Meter(), Best(), IDENTITY)


def check(path: Path, kind: str) -> Any:
    def load() -> Any:
        return load_checkpoint(path, IDENTITY, ADAPTER)

    loaded = survives(kind, load)
    survives(kind, lambda: load_checkpoint(path, IDENTITY, ADAPTER, force=True), again=True)
    if loaded is not None:
        state, meter, _, _ = loaded
        assert isinstance(state.step, int)
        assert state.adapter.keys() == ADAPTER.keys()
        json.dumps(meter.totals())
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [False, True], ids=["broken", "resealed"])
@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors"]
)
def test_bytes(checkpoint: Path, name: str, sealed: bool) -> None:
    right, seal = (checkpoint / name).read_bytes(), (checkpoint / SEAL).read_bytes()

    @fuzzing
    @given(content=mutated(st.just(right)))
    def run(content: bytes) -> None:
        (checkpoint / name).write_bytes(content)
        (checkpoint / SEAL).write_bytes(resealed(seal, {name: content}) if sealed else seal)
        loaded = check(checkpoint, "checkpoints")
        assert sealed or content == right or loaded is None

    run()


def test_the_seals_bytes(checkpoint: Path) -> None:
    right = (checkpoint / SEAL).read_bytes()

    @fuzzing
    @given(content=mutated(st.just(right)) | st.binary(max_size=50))
    def run(content: bytes) -> None:
        (checkpoint / SEAL).write_bytes(content)
        check(checkpoint, "checkpoints")

    run()


def test_the_seals_values(checkpoint: Path) -> None:
    right = json.loads((checkpoint / SEAL).read_text())

    @fuzzing
    @given(
        values=st.dictionaries(st.sampled_from(sorted(right)), junk, max_size=3),
        meter=st.dictionaries(st.sampled_from(sorted(right["meter"])), junk, max_size=2),
    )
    def run(values: dict[str, Any], meter: dict[str, Any]) -> None:
        content = right | {"meter": right["meter"] | meter} | values
        (checkpoint / SEAL).write_bytes(resealed(json.dumps(content).encode(), {}))
        check(checkpoint, "checkpoints")

    run()
