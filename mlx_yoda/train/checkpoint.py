"""Checkpoints: a PEFT adapter with the optimizer's state and the place in the run beside it.

    checkpoint-220/
      adapter_config.json, adapter_model.safetensors   # what PEFT loads
      optimizer.safetensors                            # AdamW's moments
      trainer_state.json                               # step, totals, fingerprints, SHA-256 of all

Order of rows and dropout are functions of (seed, step), so there is no generator's state to keep.
"""

import contextlib
import re
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
from mlx_yoda.train.integrity import SEAL, Broken, seal, unseal
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.optimizer import Moments
from mlx_yoda.train.step import State

_NAME = re.compile(r"checkpoint-(\d+)")
OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Identity:
    """What an adapter belongs to, and what a resumed run must share with the first one.

    Attributes:
        lora: the adapter's configuration.
        base: the base model's name, as PEFT will look for it.
        revision: its revision on the Hub.
        fingerprints: name → value of everything that changes the mathematics of the run.
        architecture: of the base; another one has no use for the checkpoint.
        processes: how many shared the steps when the run began.
    """

    lora: LoraConfig
    base: str
    revision: str | None
    fingerprints: Mapping[str, Any]
    architecture: str
    processes: int = 1


def save_checkpoint(
    output_dir: Path, state: State, meter: Meter, best: Best, identity: Identity
) -> Path:
    """Write `checkpoint-<step>` beside its place and rename it, so that it is whole or absent.

    One that is there already stays if it is the same.
    """
    path = output_dir / f"checkpoint-{state.step}"
    moments = {
        f"{moment}.{path}.{name}": np.array(array, order="C")
        for moment, adapter in state.moments._asdict().items()
        for path, pair in adapter.items()
        for name, array in pair.items()
    }
    same = contextlib.suppress(_AlreadySaved)
    with same, files.new_directory(path, replace=True) as folder:
        save_weights(folder, state.adapter, identity)
        files.write_bytes(folder / OPTIMIZER_FILE, safetensors.numpy.save(moments))
        trainer = {
            "global_step": state.step,
            "meter": meter.totals(),
            **best.as_dict(),
            "architecture": identity.architecture,
            "processes": identity.processes,
            "fingerprints": dict(identity.fingerprints),
        }
        seal(folder, trainer)
        if _same(path, folder):
            raise _AlreadySaved
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


def load_checkpoint(
    path: Path, identity: Identity, fresh: Adapter, *, force: bool = False
) -> tuple[State, Meter, Best, list[str]]:
    """Read a checkpoint back, bit for bit.

    Args:
        path: the checkpoint.
        identity: of the run that is to go on.
        fresh: that run's adapter before its first step, for its shapes.
        force: whether another run's checkpoint will do, if its shapes fit.

    Returns:
        The state, the totals, the best evaluation, and the differences that `force` overrode.

    Raises:
        UserError: it is broken, or belongs to a run that differs in the data, the base or a
            setting that changes the mathematics.
    """
    try:
        trainer = unseal(path)
        _check_types(trainer)
        raw = safetensors.numpy.load_file(path / OPTIMIZER_FILE)
        step, meter = int(trainer["global_step"]), Meter(**trainer["meter"])
        best, saved = Best.of_dict(trainer), dict(trainer["fingerprints"])
        architecture = trainer["architecture"]
    except (Broken, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{path} is no intact checkpoint ({error}); resume from another with --resume DIR."
        ) from None
    if architecture != identity.architecture:
        raise UserError(
            f"{path} is of a {architecture} and the base is a {identity.architecture}; "
            "take the base of that run (not even --force makes up for it)."
        )
    adapter = load_adapter(path).weights()
    different = _differences(saved, identity.fingerprints)
    if different and not force:
        if _is_extended(saved, identity.fingerprints, step):
            raise UserError(
                f"{path} is the last step of a finished run, whose learning rate has run out: to "
                f"train longer, start a new run from its adapter (--init-adapter {path} and "
                "another --output-dir)."
            )
        possible = _shapes(adapter) == _shapes(fresh)
        raise UserError(
            f"{path} belongs to another run: {'; '.join(different)}; use the settings of that "
            f"run, {'go on regardless with --force, ' if possible else ''}or start anew with "
            "--overwrite."
        )
    _check_shapes(path, _shapes(adapter), _shapes(fresh))
    moments = Moments(*(_moment(path, moment, raw, adapter) for moment in Moments._fields))
    return State(step, adapter, moments), meter, best, different


def _is_extended(saved: Mapping[str, Any], asked: Mapping[str, Any], step: int) -> bool:
    """Whether a finished run is asked for more steps, and for nothing else."""
    total = "total steps"
    finished = saved.get(total) == step < asked.get(total, 0)
    return finished and not _differences({**saved, total: asked[total]}, asked)


def shared_by(path: Path) -> tuple[int, int]:
    """How many processes shared an intact checkpoint's steps, and the rows of such a step."""
    try:
        state = unseal(path)
        processes = state.get("processes", 1)
        rows = state["fingerprints"]["rows per optimizer step"]
    except (Broken, KeyError, TypeError):
        return 1, 0
    sound = type(processes) is int and type(rows) is int and processes > 0
    return (processes, rows) if sound else (1, 0)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint by its name or by what is in it."""
    return path.is_dir() and bool(_NAME.fullmatch(path.name) or (path / SEAL).exists())


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name, which `checkpoints` has given."""
    return int(checkpoint.name.rpartition("-")[2])


def rotate(output_dir: Path, limit: int | None, newest: Path, best: Best | None = None) -> None:
    """Remove the oldest checkpoints beyond `limit`; the one just saved and the best stay."""
    if limit is None:
        return
    kept, found = {newest}, checkpoints(output_dir)
    if best and best.saved is not None:
        kept.add(output_dir / f"checkpoint-{best.saved}")
    removable = [path for path in found if path not in kept]
    for path in removable[: max(0, len(found) - max(limit, len(kept)))]:
        files.remove_directory(path)


class _AlreadySaved(Exception):
    """The checkpoint that has just been written is there already."""


def _same(path: Path, new: Path) -> bool:
    """Whether a checkpoint is intact and equals a new one in everything but the time it took."""
    try:
        there, made = unseal(path), unseal(new)
    except Broken:
        return False
    for state in (there, made):
        state["meter"] = {**state["meter"], "seconds": None, "longest": None}
    return there == made


def _check_types(trainer: Mapping[str, Any]) -> None:
    """Refuse values of wrong types in a seal that is whole: a stranger can seal anything."""
    meter, best = trainer["meter"], Best.of_dict(dict(trainer))
    if type(trainer["global_step"]) is not int or not isinstance(trainer["architecture"], str):
        raise ValueError(f"{SEAL} has no step or no architecture")
    if not isinstance(meter, dict) or not isinstance(trainer["fingerprints"], dict):
        raise ValueError(f"{SEAL} has no meter or no fingerprints")
    for number in (*meter.values(), *vars(best).values()):
        if not isinstance(number, int | float | None):
            raise ValueError(f"{SEAL} holds {str(number)[:60]!r} in a number's place")


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs of all that the checkpoint has; an older version's has less."""
    return [
        f"{name} was {value!r} and is {now.get(name)!r}"
        for name, value in sorted(saved.items())
        if value != now.get(name)
    ]


def _shapes(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    return {f"{path}.{name}": a.shape for path, pair in adapter.items() for name, a in pair.items()}


def _check_shapes(
    path: Path, saved: Mapping[str, tuple[int, ...]], now: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse an adapter that is not of the run's shapes, which nothing can override."""
    for name in (*now, *saved):
        if saved.get(name) != now.get(name):
            raise UserError(
                f"{path} does not fit: {name} is {saved.get(name, 'absent')} in it and "
                f"{now.get(name, 'absent')} in this run; use lora.r and target_modules of that "
                "run (not even --force makes up for shapes)."
            )


def _moment(path: Path, moment: str, raw: Mapping[str, np.ndarray], adapter: Adapter) -> Adapter:
    """One of AdamW's two running means, shaped as the adapter."""
    found: Adapter = {}
    for module, pair in adapter.items():
        found[module] = {}
        for name, weight in pair.items():
            array = raw.get(f"{moment}.{module}.{name}")
            if array is None or array.shape != weight.shape:
                raise UserError(
                    f"{path / OPTIMIZER_FILE} has no {moment}.{module}.{name} of the adapter's "
                    "shape; resume from another checkpoint with --resume DIR."
                )
            found[module][name] = mx.array(array)
    return found
