"""Checkpoints: a PEFT adapter with the optimizer's state and the place in the run beside it.

    checkpoint-220/
      adapter_config.json, adapter_model.safetensors   # what PEFT loads
      optimizer.safetensors                            # AdamW's moments
      trainer_state.json                               # step, totals, fingerprints

Order of rows and dropout are functions of (seed, step), so there is no generator's state to keep.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from mlx_yoda import files
from mlx_yoda.adapters.peft import load_adapter, save_adapter
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import Adapter
from mlx_yoda.train.best import Best
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.optimizer import Moments
from mlx_yoda.train.step import State

_NAME = re.compile(r"checkpoint-(\d+)")
_OPTIMIZER, _TRAINER = "optimizer.safetensors", "trainer_state.json"


@dataclass(frozen=True)
class Identity:
    """What an adapter belongs to, and what a resumed run must share with the first one.

    Attributes:
        lora: the adapter's configuration.
        base: the base model's name, as PEFT will look for it.
        revision: its revision on the Hub.
        fingerprints: name → value of everything that changes the mathematics of the run.
    """

    lora: LoraConfig
    base: str
    revision: str | None
    fingerprints: Mapping[str, Any]


def save_checkpoint(
    output_dir: Path, state: State, meter: Meter, best: Best, identity: Identity
) -> Path:
    """Write `checkpoint-<step>` beside its place and rename it, so that it is whole or absent."""
    path = output_dir / f"checkpoint-{state.step}"
    if path.exists():  # of this very step of this very run: already whole
        return path
    with files.new_directory(path) as folder:
        save_weights(folder, state.adapter, identity)
        moments = {
            f"{moment}.{path}.{name}": np.array(array, order="C")
            for moment, adapter in state.moments._asdict().items()
            for path, pair in adapter.items()
            for name, array in pair.items()
        }
        files.write_bytes(folder / _OPTIMIZER, safetensors.numpy.save(moments))
        trainer = {
            "global_step": state.step,
            "meter": meter.totals(),
            **best.as_dict(),
            "fingerprints": dict(identity.fingerprints),
        }
        files.write_json(folder / _TRAINER, trainer)
    return path


def save_weights(folder: Path, adapter: Adapter, identity: Identity) -> None:
    """Write the two files of a PEFT adapter."""
    magnitude = "lora_magnitude_vector"
    save_adapter(
        folder,
        {path: (weights["lora_A"], weights["lora_B"]) for path, weights in adapter.items()},
        identity.lora,
        base_model_name_or_path=identity.base,
        revision=identity.revision,
        magnitudes={path: w[magnitude] for path, w in adapter.items() if magnitude in w},
    )


def load_checkpoint(path: Path, identity: Identity) -> tuple[State, Meter, Best]:
    """Read a checkpoint back, bit for bit.

    Raises:
        UserError: it is broken, or belongs to a run that differs in the data, the base or a
            setting that changes the mathematics.
    """
    try:
        trainer = json.loads((path / _TRAINER).read_text(encoding="utf-8"))
        raw = safetensors.numpy.load_file(path / _OPTIMIZER)
        step, meter = int(trainer["global_step"]), Meter(**trainer["meter"])
        best, saved = Best.of_dict(trainer), dict(trainer["fingerprints"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{path} is no intact checkpoint ({error}); resume from another with --resume DIR."
        ) from None
    _refuse_differences(path, saved, identity.fingerprints)
    adapter = load_adapter(path).weights()
    first, second = (
        {
            module: {name: mx.array(raw[f"{moment}.{module}.{name}"]) for name in pair}
            for module, pair in adapter.items()
        }
        for moment in Moments._fields
    )
    return State(step, adapter, Moments(first, second)), meter, best


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    found = [(m, p) for p in output_dir.glob("checkpoint-*") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, key=lambda item: int(item[0][1]))]


def rotate(output_dir: Path, limit: int | None, best: Best | None = None) -> None:
    """Remove the oldest checkpoints beyond `limit`; the newest and the best always stay."""
    if limit is None:
        return
    *older, newest = checkpoints(output_dir)
    kept = {newest}
    if best and best.saved is not None:
        kept.add(output_dir / f"checkpoint-{best.saved}")
    removable = [path for path in older if path not in kept]
    for path in removable[: max(0, len(older) + 1 - max(limit, len(kept)))]:
        shutil.rmtree(path)


def _refuse_differences(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    different = [
        f"{name} was {saved.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*saved, *now})
        if saved.get(name) != now.get(name)
    ]
    if different:
        raise UserError(
            f"{path} belongs to another run: {'; '.join(different)}; "
            "use the settings of that run, or start anew with --overwrite."
        )
