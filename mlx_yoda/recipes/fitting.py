"""Choosing micro-batch and recomputation for this machine, and bounding the allocator."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import mlx.core as mx

from mlx_yoda.config.schema import Config, DataConfig
from mlx_yoda.data.packing import PackedRows
from mlx_yoda.data.shapes import Shape
from mlx_yoda.lora.binding import Layers, adapter_of
from mlx_yoda.model.load import Loaded
from mlx_yoda.model.sizes import sizes_of
from mlx_yoda.report.events import Reporter, Working
from mlx_yoda.train.allocator import bound
from mlx_yoda.train.compilation import decide
from mlx_yoda.train.fit import budget_of, choose, machine_memory
from mlx_yoda.train.forward import arrays_for, forward_of
from mlx_yoda.train.plan import ALONE, Part, Plan, make_plan
from mlx_yoda.train.prefix import Prefix, first_adapted_layer, run_prefix
from mlx_yoda.train.probe import probed
from mlx_yoda.train.recompute import Keep
from mlx_yoda.train.step import State, Steps, make_steps


@dataclass(frozen=True)
class Fitting:
    """How the run will use memory.

    Attributes:
        micro_batch: rows computed at once.
        keep: what the layers keep for the backward pass.
        spare: bytes that the plan leaves free.
        budget: bytes that MLX's allocator may hold at the peak, besides its cache.
        notes: remarks for the user.
    """

    micro_batch: int
    keep: Keep | Sequence[Keep]
    spare: int
    budget: int
    notes: tuple[str, ...]


def fit_to_machine(
    config: Config,
    base: Loaded,
    layers: Layers,
    rows: PackedRows,
    report: Reporter,
    part: Part = ALONE,
) -> tuple[Plan, Steps, list[str]]:
    """Lay a run out for this machine.

    Args:
        config: the run.
        base: the model, its LoRA layers in place.
        layers: those layers.
        rows: the training rows.
        report: told what takes a while.
        part: which rows of each step are this process's.

    Returns:
        The plan of the run, the two halves of its step, and remarks for the user.

    Raises:
        UserError: there are no rows, or there is not enough memory whatever is done.
    """
    report(Working(f"planning memory for {len(rows):,} rows"))
    fit = fit_to_memory(config, base, rows, part)
    plan = make_plan(rows, config.train, fit.micro_batch, part)
    prefix = frozen_prefix(base, layers, rows, fit.spare)
    compilation = decide(config.train.compile)
    steps = make_steps(
        config.train,
        layers,
        forward_of(base.model, fit.keep, prefix.first if prefix else 0),
        compiled=compilation.compiled,
        arrays=prefix.arrays if prefix else arrays_for(base.model),
    )
    compiling = "compiling a step and " if compilation.compiled else ""
    report(Working(f"{compiling}trying out the longest rows"))
    state = State.fresh(adapter_of(layers))
    plan = probed(plan, steps, state, config.train, fit.budget, report)
    return plan, steps, [*fit.notes, *filter(None, [compilation.note, _fewer(config, plan)])]


def fit_to_memory(config: Config, base: Loaded, rows: PackedRows, part: Part = ALONE) -> Fitting:
    """Fit the run into this machine's memory and bound the allocator's cache accordingly.

    Only Phi-3 has a memory plan; another architecture runs as it is configured, and recomputes its
    layers where `gradient_checkpointing` is true.

    Raises:
        UserError: there is not enough memory whatever is done.
    """
    train = config.train
    if base.config["model_type"] != "phi3":
        budget = budget_of(machine_memory())
        keep = Keep.INPUT if train.gradient_checkpointing is True else Keep.EVERYTHING
        return Fitting(train.per_device_train_batch_size, keep, 0, budget, ())
    fit = choose(
        sizes_of(base.config, config.lora, config.model.dtype),
        cache(partial(largest, config, rows, part=part)),
        train.per_device_train_batch_size,
        checkpointing=train.gradient_checkpointing,
        shrink=train.auto_find_batch_size,
        dropout=config.lora.lora_dropout > 0,
        memory=machine_memory(),
        fused_attention=keeps_no_probabilities(config.data),
    )
    bound(fit.demand.cache)
    notes = []
    again = sum(level is Keep.INPUT for level in fit.keep)
    if again and train.gradient_checkpointing == "auto":
        notes.append(f"to fit into memory, {again} of {len(fit.keep)} layers are recomputed")
    spare = fit.budget - fit.demand.footprint
    budget = fit.budget - fit.demand.cache
    return Fitting(fit.micro_batch, fit.keep, spare, budget, tuple(notes))


def keeps_no_probabilities(config: DataConfig) -> bool:
    """Whether attention is fused: on Metal, with the plain causal mask of unshared rows."""
    return bool(mx.metal.is_available()) and config.packing != "best_fit"


def frozen_prefix(base: Loaded, layers: Layers, rows: PackedRows, spare: int) -> Prefix | None:
    """Run the layers below the first adapted one over all rows, if there are any and it fits."""
    first = first_adapted_layer(base.model, layers)
    if not first:
        return None
    (width,), item = base.model.model.norm.weight.shape, base.model.model.norm.weight.dtype.size
    tokens = int(rows.lengths.sum())
    if tokens * width * item > spare:
        return None
    return run_prefix(base.model, first, rows)


def _fewer(config: Config, plan: Plan) -> str | None:
    wanted = config.train.per_device_train_batch_size
    if plan.micro_batch == wanted:
        return None
    return (
        f"memory allows {plan.micro_batch} rows at once, not {wanted}; the rows of an optimizer "
        "step stay the same"
    )


def largest(config: Config, rows: PackedRows, micro_batch: int, part: Part = ALONE) -> Shape:
    """The shape of a process's largest batch of so many rows."""
    return make_plan(rows, config.train, micro_batch, part).shapes[-1]
