"""`mlx-yoda plan`."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_yoda.cli.command import remark, say
from mlx_yoda.cli.settings import Configured, config_options, configuration, settings
from mlx_yoda.errors import UserError

if TYPE_CHECKING:
    from mlx_yoda.recipes.forecast import Forecast
    from mlx_yoda.recipes.timing import Timing
    from mlx_yoda.train.memory import Demand

_EXAMPLES = """\
mlx-yoda plan --config phi3-mini
mlx-yoda plan --config phi3-mini --memory 16GB
mlx-yoda plan --config phi3-mini --quantize 4 --memory 8GB
mlx-yoda plan --model models/phi3-mini-4bit --set data.max_length=256 --json
"""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SMALL = 10**8  # bytes below which hundredths of a gigabyte say too little
_PARTS = {
    "weights": "weights of the base",
    "adapter": "adapter, gradients and optimizer",
    "activations": "kept for the backward pass",
    "working": "loss, or a layer's backward pass",
    "cache": "the allocator's cache",
    "footprint": "in all",
}
_KEPT = {
    "EVERYTHING": "everything",
    "SOURCES": "layer inputs",
    "ATTENTION": "not the MLP",
    "INPUT": "whole layers again",
}


def _finite(_: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse what `FloatRange` lets pass: not a number is neither below nor above a bound."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of seconds.", param=param)
    return value


@click.command("plan", cls=Configured, epilog=_EXAMPLES, short_help="Plan a run's memory and time.")
@config_options
@settings("model.model_name_or_path", "model.quantization", "data.dataset_name")
@click.option("--memory", metavar="SIZE", help="Plan for so much, such as 16GB; not this machine.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 60),
    callback=_finite,
    help="How long to measure this machine's speed for; 0 predicts no time.  [5; 0 with --memory]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    memory: str | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Plan a run's memory and time before its base is downloaded.

    The weights are not read: config.json gives their sizes, and the rows are read with the
    tokenizer; where they cannot be, each is taken to be data.max_length tokens long. Every line of
    the table is a number of rows computed at once and what is kept for the backward pass; what is
    not kept is computed again.

    The time is that of this machine, which multiplies matrices of the model's shapes for some
    seconds to find its speed.
    """
    config = configuration(file, overrides)
    size = _bytes(memory) if memory else None
    if seconds is None:
        seconds = 0.0 if memory else 5.0

    from mlx_yoda.recipes.forecast import forecast
    from mlx_yoda.report.words import describe

    found = forecast(config, size, seconds, lambda event: remark(describe(event)))
    if as_json:
        say(json.dumps(_as_dict(found), indent=2))
    else:
        _show(found)


def _show(found: "Forecast") -> None:
    say(f"{found.trainable_parameters:,} trainable parameters; a memory of {_gb(found.memory)}")
    if found.unread:
        say("rows are taken to be as long as data.max_length allows, and no time is predicted:")
        say(f"  {found.unread}")
    say()
    say(f"{'rows at once':>12}  {'kept':20}{'peak':>10}{'with cache':>12}")
    for (rows, keep), need in found.table.items():
        line = f"{rows:12}  {_KEPT[keep.name]:20}{_gb(need.peak):>10}{_gb(need.footprint):>12}"
        say(line if need.footprint <= found.budget else f"{line}  too much")
    say()
    if found.chosen is None:
        say(str(found.reason))
        return
    chosen = found.chosen
    names = [level.name for level in chosen.keep]
    kept = ", ".join(f"{names.count(n)} layers: {_KEPT[n]}" for n in dict.fromkeys(names))
    taken = "1 row" if chosen.micro_batch == 1 else f"{chosen.micro_batch} rows"
    say(f"training takes {taken} at once and keeps ({kept}):")
    for part, meaning in _PARTS.items():
        say(f"  {meaning:34}{_gb(getattr(chosen.demand, part)):>10}{_detail(part, chosen.demand)}")
    if found.time:
        _show_time(found.time)


def _show_time(time: "Timing") -> None:
    from mlx_yoda.report.words import duration

    epochs = time.total_steps / time.steps_per_epoch
    say()
    speed = _count(time.speed.products / 1e9)
    say(f"at this machine's {speed} GFLOP/s it takes, evaluation left out:")
    for name, seconds, detail in (
        ("a step", time.step, f"{_count(time.tokens / time.epoch)} tokens a second"),
        ("an epoch", time.epoch, f"{_steps(time.steps_per_epoch)}, {time.tokens:,} tokens"),
        ("the run", time.run, f"{_steps(time.total_steps)}, {epochs:.4g} epochs"),
    ):
        shown = duration(seconds) if seconds >= 1 else f"{1000 * seconds:.0f} ms"
        say(f"  {name:32}{shown:>12}   {detail}")


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _detail(part: str, need: "Demand") -> str:
    if part != "working":
        return ""
    if need.working > max(need.loss, need.layer):
        return "   what the optimizer's update makes anew"
    return f"   the larger of {_gb(need.loss)} and {_gb(need.layer)}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= _SMALL else f"{size / 1e6:.1f} MB"


def _as_dict(found: "Forecast") -> dict[str, Any]:
    def parts(need: "Demand") -> dict[str, int]:
        return {part: getattr(need, part) for part in (*_PARTS, "loss", "layer", "peak")}

    chosen = found.chosen
    return {
        "memory": found.memory,
        "trainable_parameters": found.trainable_parameters,
        "table": [
            {"rows": rows, "keep": keep.name.lower(), **parts(need)}
            for (rows, keep), need in found.table.items()
        ],
        "chosen": chosen
        and {
            "rows": chosen.micro_batch,
            "keep": [level.name.lower() for level in chosen.keep],
            **parts(chosen.demand),
        },
        "reason": found.reason,
        "rows": None if found.rows is None else len(found.rows),
        "unread": found.unread,
        "time": found.time and asdict(found.time) | {"speed": found.time.speed._asdict()},
    }


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise UserError(f"--memory {text}: write it as a size, such as 16GB.")
    return int(float(found[1]) * _UNITS[found[2].upper()])
