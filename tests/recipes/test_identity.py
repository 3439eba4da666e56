"""What a resumed run must share with the one that wrote the checkpoint."""

import os
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from mlx_yoda import digests
from mlx_yoda.config import schema
from mlx_yoda.config.keys import keys
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.recipes import identity
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.identity import identify

OF_TODAY = Path(__file__).parent / "checkpoint_of_9c8eaad"  # written by the code of that commit
IDENTITY = [path for path, key in keys().items() if key.identity and path != "model.quantization"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fingerprints(base_folder):
    """The fingerprints of a configuration, without a run."""

    def of(config: Config, folder: Path = base_folder, held_out: str = "h", rows: str = "t"):
        base = SimpleNamespace(path=folder, name=str(folder), config={"model_type": "phi3"})
        plan = SimpleNamespace(
            rows_per_step=4, total_steps=10, part=SimpleNamespace(planned=1), rows=None
        )
        data = SimpleNamespace(
            train=SimpleNamespace(digest=lambda: rows),
            validation=SimpleNamespace(digest=lambda: held_out),
        )
        return identify(config, base, data, plan).fingerprints

    return of


def other(value):
    """Another value of a setting."""
    match value:
        case bool() | None:
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, "x"]
        case dict():
            return {**value, "x": 1}


@pytest.mark.parametrize("path", IDENTITY)
def test_each_setting_that_changes_the_numbers_is_compared(fingerprints, path):
    section, _, name = path.partition(".")
    settings = getattr(Config(), section)
    changed = replace(settings, **{name: other(getattr(settings, name))})
    before, after = fingerprints(Config()), fingerprints(Config(**{section: changed}))
    assert {name for name in before if before[name] != after[name]} == {path}


def test_the_settings_of_the_optimizer_and_the_adapter_are_among_them():
    """Those that the schema may not mark as harmless, whatever else is added."""
    assert {
        *(f"lora.{field.name}" for field in fields(schema.LoraConfig)),
        *("train.adam_beta1", "train.adam_beta2", "train.adam_epsilon", "train.weight_decay"),
        *("train.learning_rate", "train.lr_scheduler_type", "train.warmup_steps", "train.seed"),
        *("train.warmup_ratio", "train.max_grad_norm", "train.loraplus_lr_ratio", "model.dtype"),
    } <= {*IDENTITY}


def test_a_field_that_does_not_say_whether_it_counts_is_an_error():
    for cls in vars(schema).values():
        if is_dataclass(cls) and cls is not Config:
            assert all(type(field.metadata["identity"]) is bool for field in fields(cls))
    with pytest.raises(TypeError, match="identity"):
        schema._field(1, "A setting that forgot to say it.")


def test_the_rows_count_those_held_out_too(fingerprints):
    before = fingerprints(Config())
    for changed, name in (({"held_out": "x"}, "held-out"), ({"rows": "x"}, "training")):
        after = fingerprints(Config(), **changed)
        assert {key for key in before if before[key] != after[key]} == {f"the {name} rows"}


def test_every_byte_of_the_base_counts_and_is_read_once(base_folder, tmp_path, cache, monkeypatch):
    folder = shutil.copytree(base_folder, tmp_path / "base")
    (path,) = folder.glob("*.safetensors")
    before = identity._digest_weights(folder)
    monkeypatch.setattr(digests, "_computed", lambda *_: pytest.fail("it was read again"))
    assert identity._digest_weights(folder) == before
    monkeypatch.undo()
    monkeypatch.setenv("MLX_YODA_CACHE", str(cache))
    times, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2 + 5000] ^= 1
    with path.open("r+b") as file:  # in place, with the size and the time that it had
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert identity._digest_weights(folder) != before


def test_the_digest_of_a_file_is_that_of_its_pieces(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 10)
    whole = digests._computed(path, 2560)
    monkeypatch.setattr(digests, "_PIECE", 1000)
    pieces = digests._computed(path, 2560)
    assert pieces != whole
    for place in (0, 1000, 2559):
        content = bytearray(bytes(range(256)) * 10)
        content[place] ^= 1
        path.write_bytes(content)
        assert digests._computed(path, 2560) != pieces


def test_without_a_cache_it_is_read_each_time(base_folder, tmp_path, monkeypatch):
    before = identity._digest_weights(base_folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "file"))
    assert identity._digest_weights(base_folder) == before


def run(output: Path, *overrides: str, **how) -> None:
    options = {"train.output_dir": str(output)}
    finetune(
        load_config(OF_TODAY / "config.yaml", overrides, options),
        reporter=lambda event: None,
        **how,
    )


@pytest.mark.slow
def test_a_checkpoint_of_an_older_version_resumes_to_the_same_bits(tmp_path):
    """Where this machine computes the bits of the one that wrote it; else to the same numbers."""
    run(tmp_path / "whole")
    run(tmp_path / "resumed", resume=OF_TODAY / "checkpoint-2")
    name = "optimizer.safetensors"
    whole, resumed = (tmp_path / run / "checkpoint-4" / name for run in ("whole", "resumed"))
    if (OF_TODAY / "checkpoint-2" / name).read_bytes() == (
        tmp_path / "whole/checkpoint-2" / name
    ).read_bytes():
        assert resumed.read_bytes() == whole.read_bytes()
    expected = safetensors.numpy.load_file(whole)
    for key, found in safetensors.numpy.load_file(resumed).items():
        np.testing.assert_allclose(found, expected[key], rtol=1e-2, atol=1e-7)


@pytest.mark.slow
def test_what_a_checkpoint_of_an_older_version_has_is_compared(tmp_path):
    with pytest.raises(UserError, match=r"train\.adam_beta2 was 0\.999 and is 0\.99;"):
        run(tmp_path / "run", "train.adam_beta2=0.99", resume=OF_TODAY / "checkpoint-2")
    assert not (tmp_path / "run").exists()
