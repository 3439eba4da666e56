"""How many steps a run takes, which rows each of them takes, and in what shapes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.data.batches import Batch, epoch_order, group_needs, micro_batches, share
from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.data.shapes import Shape, choose_shapes
from mlx_yoda.errors import UserError


class Part(NamedTuple):
    """Which part of every optimizer step is this process's.

    Attributes:
        rank: which process it is, from 0.
        size: how many there are.
        planned: how many there were when the run began; they set the rows of a step.
    """

    rank: int = 0
    size: int = 1
    planned: int = 1


ALONE = Part()


@dataclass(frozen=True)
class Plan:
    """A run's steps: a function of the settings and the rows alone, and this process's part.

    Attributes:
        rows: the training rows.
        rows_per_step: rows of an optimizer step, over all processes.
        micro_batch: rows computed at once; they change the memory needed, not the step.
        steps_per_epoch: optimizer steps, the last and smaller one included.
        total_steps: steps of the whole run.
        seed: of the order of rows and of dropout.
        shapes: the shapes of all micro-batches of this process.
        heaviest: the step with the micro-batch of most tokens.
        part: which rows of each step are this process's.
    """

    rows: PackedRows
    rows_per_step: int
    micro_batch: int
    steps_per_epoch: int
    total_steps: int
    seed: int
    shapes: tuple[Shape, ...]
    heaviest: int
    part: Part = ALONE

    def epoch(self, step: int) -> float:
        """Passes over the data after so many steps."""
        return step / self.steps_per_epoch

    def interval(self, steps: float) -> int:
        """A number of steps, or as in Transformers a share of all of them, rounded up."""
        return math.ceil(self.total_steps * steps) if steps < 1 else int(steps)

    def steps(self, start: int = 0) -> Iterator[tuple[int, Iterator[Batch]]]:
        """The steps from `start` on, counted from 0, each with this process's micro-batches."""
        rank, size, _ = self.part
        for step, indices in _steps(self.rows, self.rows_per_step, self.seed, start):
            if step == self.total_steps:
                return
            begin, end = share(len(indices), rank, size)
            first, mine = int(self.rows.lengths[indices[:begin]].sum()), indices[begin:end]
            yield step, micro_batches(self.rows, mine, self.micro_batch, self.shapes, first)

    def taken(self, step: int) -> list[int]:
        """Which rows a step takes, over all processes."""
        return next(_steps(self.rows, self.rows_per_step, self.seed, step))[1]


def make_plan(
    rows: Sequence[Packed],
    config: TrainConfig,
    micro_batch: int | None = None,
    part: Part = ALONE,
) -> Plan:
    """Lay out a run.

    Args:
        rows: the training rows.
        config: batch size, accumulation, epochs or steps, seed.
        micro_batch: rows at once, if memory allows fewer than `per_device_train_batch_size`.
        part: which rows of each step are this process's.

    Raises:
        UserError: there are no rows, or fewer than processes.
    """
    rows = PackedRows.of(rows)
    if not rows:
        raise UserError("no training rows are left; give the data more rows or a longer max_length")
    if len(rows) < part.size:
        raise UserError(f"{len(rows)} training rows are too few for {part.size} processes")
    device = config.per_device_train_batch_size * config.gradient_accumulation_steps
    rows_per_step = device * part.planned
    micro_batch = micro_batch or config.per_device_train_batch_size
    steps_per_epoch = math.ceil(len(rows) / rows_per_step)
    total_steps = config.max_steps
    if total_steps <= 0:
        total_steps = math.ceil(config.num_train_epochs * steps_per_epoch)
    needs: list[np.ndarray] = []  # of each epoch
    most, heaviest = 0, 0
    for epoch in range(math.ceil(total_steps / steps_per_epoch)):
        order = epoch_order(rows.lengths, rows_per_step, config.seed, epoch)
        steps, need = order.share(part.rank, part.size).needs(rows, micro_batch)
        steps += epoch * steps_per_epoch
        needs.append(need[steps < total_steps])
        tokens = needs[-1][:, 0]
        if tokens.max(initial=0) >= max(most, 1):
            most, heaviest = (
                int(tokens.max()),
                int(steps[np.flatnonzero(tokens == tokens.max())[-1]]),
            )
    if not most:  # a process without a row in so short a run
        needs = [group_needs(rows, np.array([rows.lengths.argmax()]), np.array([0]))]
    return Plan(
        rows=rows,
        rows_per_step=rows_per_step,
        micro_batch=micro_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        seed=config.seed,
        shapes=tuple(choose_shapes(needs[0], np.concatenate([needs[0][:0], *needs[1:]]))),
        heaviest=heaviest,
        part=part,
    )


def padding_share(plan: Plan) -> float:
    """The share of computed tokens that are padding, over the first epoch."""
    computed = real = 0
    for _, batches in islice(plan.steps(), plan.steps_per_epoch):
        for batch in batches:
            computed += len(batch.tokens)
            real += batch.input_tokens
    return 1 - real / computed


def _steps(
    rows: PackedRows, rows_per_step: int, seed: int, start: int = 0
) -> Iterator[tuple[int, list[int]]]:
    """Endless: each step's number and rows, from `start` on."""
    steps_per_epoch = math.ceil(len(rows) / rows_per_step)
    epoch, index = divmod(start, steps_per_epoch)
    while True:
        order = epoch_order(rows.lengths, rows_per_step, seed, epoch)
        for step in range(index, steps_per_epoch):
            yield epoch * steps_per_epoch + step, order.step(step)
        epoch, index = epoch + 1, 0
