"""Several processes that train one adapter: how they share the work, and begin alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.machine import versions
from mlx_yoda.recipes.dataset import Dataset
from mlx_yoda.recipes.output import Output
from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import Identity
from mlx_yoda.train.group import Group
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Part
from mlx_yoda.train.shortage import lacks_memory
from mlx_yoda.train.step import State

_VERSIONS = ("mlx-yoda", "mlx")  # what the numbers of a step depend on


def part_of(group: Group, config: Config, output: Output | None) -> tuple[Part, list[str]]:
    """This process's part of every step, and a remark if the run goes on with other processes.

    A run that was begun with other processes keeps the rows of its steps.

    Args:
        group: the processes.
        config: the run.
        output: the run's folder, which the first process alone knows.
    """
    begun = group.told(output.begun if output else None)
    train = config.train
    rows = train.per_device_train_batch_size * train.gradient_accumulation_steps
    planned, notes = group.size, []
    if begun and begun[1] not in (rows * group.size, 0) and begun[1] == rows * begun[0]:
        planned = begun[0]
        notes.append(
            f"the run began on {_several(planned)} and goes on on {_several(group.size)}: a step "
            f"keeps its {begun[1]} rows"
        )
    return Part(group.rank, group.size, planned), notes


def make_sure_of_sameness(group: Group, config: Config, identity: Identity, data: Dataset) -> None:
    """See that all processes are about to do the same.

    Raises:
        UserError: they differ in settings, base, data or versions.
    """
    if group.size == 1:
        return
    found = versions()
    mine = _settings(asdict(config)) | dict(identity.fingerprints)
    mine |= {"the held-out rows": data.validation.digest()}
    mine |= {f"the version of {name}": found[name] for name in _VERSIONS}
    first, *others = group.gathered(mine)
    for rank, theirs in enumerate(others, 1):
        different = [
            f"{name} is {first.get(name)!r} there and {theirs.get(name)!r} here"
            for name in first
            if first.get(name) != theirs.get(name)
        ]
        if different:
            raise UserError(
                f"process {rank} is not like process 0: {'; '.join(different)}; all machines need "
                "the same settings, base, data and versions."
            )


def given(group: Group, state: State, meter: Meter, best: Best) -> tuple[State, Meter, Best]:
    """What the first process begins with: its weights and moments to the bit, its totals."""
    step, totals, found = group.told((state.step, meter.totals(), best.as_dict()))
    adapter, moments = group.given((state.adapter, state.moments))
    if group.leads:
        return State(step, adapter, moments), meter, best
    return State(step, adapter, moments), Meter(**totals), Best.of_dict(found)


@contextmanager
def as_one(group: Group, doing: str) -> Iterator[None]:
    """What all processes do together or not at all: one cannot do it again with less memory.

    Raises:
        UserError: memory ran out, and there are several processes.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if group.size == 1 or not lacks_memory(error):
            raise
        raise UserError(
            f"memory ran out while {doing}; go on with --resume and a smaller "
            "train.per_device_eval_batch_size."
        ) from error


def _settings(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}.{key}": keys[key] for name, keys in sections.items() for key in keys}


def _several(processes: int) -> str:
    return f"{processes} processes" if processes > 1 else "one process"
