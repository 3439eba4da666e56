"""Fitting a step into memory: how many rows at once, and what each layer keeps.

Neither changes the result of a step (`mlx_yoda.train.step` adds micro-batches up, recomputation
is exact), so both may follow the machine.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import mlx.core as mx

from mlx_yoda.data.shapes import Shape
from mlx_yoda.errors import UserError
from mlx_yoda.model.sizes import Sizes
from mlx_yoda.train.memory import Demand, demand
from mlx_yoda.train.recompute import Keep

_SHARE = 0.9  # of the machine's memory that a plan may fill
_LEVELS = (Keep.EVERYTHING, Keep.SOURCES, Keep.ATTENTION, Keep.INPUT)
_FEW_TOKENS = 512  # below it a GPU is not busy, so recomputing beats smaller batches


@dataclass(frozen=True)
class Fit:
    """What was chosen.

    Attributes:
        micro_batch: rows computed at once.
        keep: what each layer keeps, the first layer first; where no gradient goes, nothing is.
        demand: what that needs.
        budget: what there is, in bytes.
    """

    micro_batch: int
    keep: tuple[Keep, ...]
    demand: Demand
    budget: int


def machine_memory() -> int:
    """Bytes that this machine's MLX device can use."""
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "memory_size"):  # what Metal and CUDA know
        if size := info.get(key):
            return int(size)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def budget_of(memory: int) -> int:
    """Bytes that a run may take of a machine's memory; the rest is the system's."""
    return int(_SHARE * memory)


def choose(
    sizes: Sizes,
    largest: Callable[[int], Shape],
    rows: int,
    *,
    checkpointing: bool | Literal["auto"],
    shrink: bool,
    dropout: bool,
    memory: int,
    fused_attention: bool,
) -> Fit:
    """Take the fastest way that the plan allows.

    Layers keep as much as they can: everything, or else the sources of their linear layers, or
    else nothing of the MLP, or else their input alone; as few layers as need be take the leaner
    of two ways. Fewer rows at once come before recomputation as long as they are many tokens.

    Args:
        sizes: of the model and its adapter.
        largest: from rows at once to the largest shape that such a micro-batch takes.
        rows: `per_device_train_batch_size`.
        checkpointing: `gradient_checkpointing`: false keeps the sources, true the inputs alone.
        shrink: `auto_find_batch_size`: whether fewer rows may be taken.
        dropout: whether the LoRA branch drops.
        memory: bytes of the machine.
        fused_attention: whether the backend's attention keeps no probabilities.

    Raises:
        UserError: nothing fits.
    """
    budget = budget_of(memory)
    least: Demand | None = None
    adapted = sizes.layers - sizes.first
    for micro_batch, levels in _ways(adapted, largest, rows, checkpointing, shrink):
        keep = (Keep.EVERYTHING,) * sizes.first + levels
        shape = largest(micro_batch)
        need = demand(sizes, shape, keep, dropout=dropout, fused_attention=fused_attention)
        if need.footprint <= budget:
            return Fit(micro_batch, keep, need, budget)
        least = need if least is None or need.footprint < least.footprint else least
    assert least is not None
    raise UserError(
        f"the step needs {least.footprint / 1e9:.1f} GB at the least and this machine can give "
        f"{budget / 1e9:.1f} GB: {_fewer_bits(sizes)}take a shorter data.max_length or a smaller "
        "train.per_device_train_batch_size."
    )


def check_room(sizes: Sizes, name: str, memory: int) -> None:
    """Refuse a base that cannot be trained whatever the rows are, before it is loaded.

    Args:
        sizes: of the model and its adapter.
        name: what to call it.
        memory: bytes of the machine.

    Raises:
        UserError: the base and its adapter alone are too much.
    """
    least = demand(sizes, Shape(1, 1, 1, 1), (Keep.INPUT,) * sizes.layers, dropout=False)
    if least.weights + least.adapter > budget_of(memory):
        raise UserError(
            f"{name} with its adapter needs {(least.weights + least.adapter) / 1e9:.1f} GB before "
            f"any row is computed, and this machine can give {budget_of(memory) / 1e9:.1f} GB: "
            f"{_fewer_bits(sizes)}take a smaller base or a smaller lora.r."
        )


def _fewer_bits(sizes: Sizes) -> str:
    return "" if sizes.quantized else "set model.quantization={bits: 4}, or "


def _ways(
    adapted: int,
    largest: Callable[[int], Shape],
    rows: int,
    checkpointing: bool | Literal["auto"],
    shrink: bool,
) -> Iterator[tuple[int, tuple[Keep, ...]]]:
    """All that may be tried, the fastest first: rows at once, and what adapted layers keep."""
    sizes = _halves(rows) if shrink else [rows]
    if checkpointing != "auto":
        level = Keep.INPUT if checkpointing else Keep.SOURCES
        yield from ((size, (level,) * adapted) for size in sizes)
        return
    mixed = list(_mixtures(adapted))
    busy = [size for size in sizes if largest(size).tokens >= _FEW_TOKENS] or sizes[:1]
    for keep in mixed:
        yield from ((size, keep) for size in busy)
    yield from ((size, mixed[-1]) for size in sizes if size < busy[-1])


def _halves(rows: int) -> list[int]:
    sizes = [rows]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _mixtures(layers: int) -> Iterator[tuple[Keep, ...]]:
    """From all layers keeping everything to all keeping their input, layer by layer."""
    yield (_LEVELS[0],) * layers
    for more, less in pairwise(_LEVELS):
        for count in range(1, layers + 1):
            yield (less,) * count + (more,) * (layers - count)
