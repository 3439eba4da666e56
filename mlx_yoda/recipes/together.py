"""Several processes that train one adapter: how they meet, begin alike, and end together."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mlx_yoda.config.schema import Config
from mlx_yoda.errors import SaidAlready, UserError, first_line
from mlx_yoda.machine import versions
from mlx_yoda.recipes.dataset import Dataset
from mlx_yoda.recipes.interruption import Interrupted
from mlx_yoda.recipes.output import Output
from mlx_yoda.report.words import one_line
from mlx_yoda.secrets import redact
from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import Identity
from mlx_yoda.train.group import Group, join
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Part
from mlx_yoda.train.step import State

_FAULT, _INTERRUPTED = 1, 128  # exit codes
_LONGEST = 1500  # characters of a message
_VERSIONS = ("mlx-yoda", "mlx")  # what the numbers of a step depend on


@contextmanager
def joined() -> Iterator[Group]:
    """The processes that a launcher has started, or this one alone; they end together.

    Where one of them fails, or is lost, the others end at once, whatever they are waiting for: the
    whole process ends.

    Raises:
        SaidAlready: for a `UserError` that the first process has said for this one.
    """
    group = join(_end)
    try:
        yield group
    except Interrupted as stopped:
        if stopped.step is None:
            group.fail(f"stopped by {stopped}", _INTERRUPTED + stopped.signum)
        else:  # by all, after the same step
            group.leave()
        raise
    except UserError as error:
        if group.fail(str(error), 2):
            raise SaidAlready(str(error)) from None
        raise
    except KeyboardInterrupt:
        group.fail("stopped by SIGINT", _INTERRUPTED + 2)
        raise
    except Exception as error:
        group.fail(f"{type(error).__name__}: {first_line(error)}", _FAULT)
        raise
    group.leave()


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


def _settings(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}.{key}": keys[key] for name, keys in sections.items() for key in keys}


def _several(processes: int) -> str:
    return f"{processes} processes" if processes > 1 else "one process"


def _end(words: str, code: int) -> None:
    """End this process, which may be waiting for another one that never comes."""
    if words:
        os.write(2, f"error: {one_line(redact(words), _LONGEST)}\n".encode())
    os._exit(code)
