"""The plan of a run before it is loaded: memory from config.json, time from the rows as well."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_yoda.config.schema import Config
from mlx_yoda.data.packing import PackedRows
from mlx_yoda.data.shapes import Shape
from mlx_yoda.errors import UserError
from mlx_yoda.model.config_json import read_json
from mlx_yoda.model.limits import limits_of_phi3
from mlx_yoda.model.load import FILES_BUT_WEIGHTS, fetch, load_tokenizer_in
from mlx_yoda.model.sizes import dtype_of, sizes_of
from mlx_yoda.recipes.dataset import check_limits, prepare
from mlx_yoda.recipes.fitting import keeps_no_probabilities, largest
from mlx_yoda.recipes.sizing import config_when_loaded
from mlx_yoda.recipes.timing import Timing, predict
from mlx_yoda.report.events import Reporter
from mlx_yoda.train.fit import Fit, budget_of, choose, machine_memory
from mlx_yoda.train.memory import Demand, demand
from mlx_yoda.train.recompute import Keep


@dataclass(frozen=True)
class Forecast:
    """What a run will need.

    Attributes:
        rows: the training rows, or None if they cannot be read here; then a row is taken to be
            as long as `data.max_length` allows.
        unread: why they cannot be, or None.
        table: `(rows at once, what layers keep)` → demand.
        chosen: what training will take, or None if nothing fits.
        reason: why nothing fits, or None.
        memory: bytes of the machine that it is held against.
        budget: how many of them a run may take.
        trainable_parameters: of the adapter.
        time: how long it will take, or None if that is not asked for or cannot be told.
    """

    rows: PackedRows | None
    unread: str | None
    table: dict[tuple[int, Keep], Demand]
    chosen: Fit | None
    reason: str | None
    memory: int
    budget: int
    trainable_parameters: int
    time: Timing | None


def forecast(
    config: Config,
    memory: int | None = None,
    seconds: float = 0.0,
    report: Reporter = lambda event: None,
) -> Forecast:
    """Plan a run without loading the model.

    Args:
        config: the run.
        memory: bytes to plan for; None means this machine's.
        seconds: to measure this machine's speed for; 0 predicts no time.
        report: told what takes a while.

    Raises:
        UserError: there is no config.json, it is no Phi-3's, or its model cannot be given the
            rows.
    """
    found = _phi3(config)
    sizes = sizes_of(found, config.lora, config.model.dtype)
    rows, unread = _rows(config, found, report)
    shape = partial(largest, config, rows) if rows is not None else _longest(config)
    train, memory = config.train, memory or machine_memory()
    options: dict[str, Any] = {
        "dropout": config.lora.lora_dropout > 0,
        "fused_attention": keeps_no_probabilities(config.data),
    }
    table = {
        (count, keep): demand(sizes, batch, (keep,) * sizes.layers, **options)
        for count in sorted({1, train.per_device_train_batch_size, 4})
        for batch in [shape(count)]
        for keep in Keep
    }
    chosen, reason, time = None, None, None
    try:
        chosen = choose(
            sizes,
            shape,
            train.per_device_train_batch_size,
            checkpointing=train.gradient_checkpointing,
            shrink=train.auto_find_batch_size,
            memory=memory,
            **options,
        )
    except UserError as error:
        reason = str(error)
    if chosen and rows is not None and seconds:
        dtype = dtype_of(found, config.model.dtype)
        packed = found.get("quantization")
        time = predict(
            config, sizes, chosen, rows, dtype=dtype, quantization=packed, seconds=seconds
        )
    budget = budget_of(memory)
    return Forecast(rows, unread, table, chosen, reason, memory, budget, sizes.adapter, time)


def _phi3(config: Config) -> dict[str, Any]:
    found = config_when_loaded(config.model)
    if found.get("model_type") != "phi3":
        name = config.model.model_name_or_path
        raise UserError(f"{name} is no Phi-3; only Phi-3 has a memory plan so far.")
    return found


def _rows(
    config: Config, found: dict[str, Any], report: Reporter
) -> tuple[PackedRows | None, str | None]:
    """The training rows, for which the tokenizer's few megabytes are fetched; or why not.

    Raises:
        UserError: the rows can be read, but the model cannot be given them.
    """
    model = config.model
    try:
        folder = fetch(model.model_name_or_path, model.model_revision, FILES_BUT_WEIGHTS)
        tokenizer = load_tokenizer_in(
            folder, read_json(folder / "config.json"), model.trust_remote_code
        )
        data = prepare(config, tokenizer, report=report)
    except UserError as error:
        return None, str(error)
    check_limits(data, config.train, limits_of_phi3(found), tokenizer)
    return data.train, None


def _longest(config: Config) -> Callable[[int], Shape]:
    """The shape of so many rows of `data.max_length`."""
    length = config.data.max_length
    share = 1 if config.data.train_on == "all" else 2  # answers are about half of a row
    return lambda count: Shape(count * length, count, length, count * length // share)
