"""The memory plan of a run from its configuration alone: config.json is all that is fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_yoda.config.schema import Config
from mlx_yoda.data.shapes import Shape
from mlx_yoda.errors import UserError
from mlx_yoda.model.load import fetch, read_json
from mlx_yoda.model.sizes import Sizes, sizes_of
from mlx_yoda.recipes.fitting import keeps_no_probabilities
from mlx_yoda.train.fit import Fit, budget_of, choose, machine_memory
from mlx_yoda.train.memory import Demand, demand
from mlx_yoda.train.recompute import Keep


@dataclass(frozen=True)
class Forecast:
    """What a run will need.

    Attributes:
        table: `(rows at once, what layers keep)` → demand, every row as long as `max_length`.
        chosen: what training will take, or None if nothing fits.
        reason: why nothing fits, or None.
        memory: bytes of the machine that it is held against.
        budget: how many of them a run may take.
        trainable_parameters: of the adapter.
    """

    table: dict[tuple[int, Keep], Demand]
    chosen: Fit | None
    reason: str | None
    memory: int
    budget: int
    trainable_parameters: int


def forecast(config: Config, memory: int | None = None, rows: Sequence[int] = ()) -> Forecast:
    """Plan a run's memory without loading anything.

    Args:
        config: the run; rows are taken to be `data.max_length` long.
        memory: bytes to plan for; None means this machine's.
        rows: micro-batch sizes to list; the configured one and its halves if empty.

    Raises:
        UserError: there is no config.json, or it is no Phi-3's.
    """
    sizes = _sizes(config)
    train = config.train
    memory = memory or machine_memory()
    options: dict[str, Any] = {
        "dropout": config.lora.lora_dropout > 0,
        "fused_attention": keeps_no_probabilities(config.data),
    }

    def largest(count: int) -> Shape:
        length = config.data.max_length
        share = 1 if config.data.train_on == "all" else 2  # answers are about half of a row
        return Shape(count * length, count, length, count * length // share)

    listed = rows or sorted({1, train.per_device_train_batch_size, 4})
    table = {
        (count, keep): demand(sizes, largest(count), (keep,) * sizes.layers, **options)
        for count in listed
        for keep in Keep
    }
    chosen, reason = None, None
    try:
        chosen = choose(
            sizes,
            largest,
            train.per_device_train_batch_size,
            checkpointing=train.gradient_checkpointing,
            shrink=train.auto_find_batch_size,
            memory=memory,
            **options,
        )
    except UserError as error:
        reason = str(error)
    return Forecast(table, chosen, reason, memory, budget_of(memory), sizes.adapter)


def _sizes(config: Config) -> Sizes:
    name = config.model.model_name_or_path
    folder = fetch(name, config.model.model_revision, ["config.json"])
    found = read_json(folder / "config.json")
    if found.get("model_type") != "phi3":
        raise UserError(f"{name} is no Phi-3; only Phi-3 has a memory plan so far.")
    return sizes_of(found, config.lora, config.model.dtype)
