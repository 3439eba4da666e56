"""`mlx-yoda evaluate`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_yoda.cli.answering import MODEL
from mlx_yoda.cli.command import remark, say
from mlx_yoda.cli.settings import Configured, config_options, configuration, settings
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError

if TYPE_CHECKING:
    from mlx_yoda.data.columns import Conversation
    from mlx_yoda.recipes.compare import Comparison, Split

_EXAMPLES = """\
mlx-yoda evaluate --adapter outputs/demo
mlx-yoda evaluate --config outputs/demo/config.yaml --json
mlx-yoda evaluate --adapter outputs/r16 --data rows.jsonl --split train --limit 100
mlx-yoda evaluate --model microsoft/Phi-3-mini-4k-instruct --data rows.jsonl --split train
"""


@click.command(
    "evaluate",
    cls=Configured,
    epilog=_EXAMPLES,
    short_help="Measure a model, and an adapter beside it.",
)
@config_options
@settings(MODEL, "model.quantization", "data.dataset_name")
@click.option("--adapter", metavar="DIR|ID", help="Folder or Hub id of a PEFT or mlx-lm adapter.")
@click.option(
    "--split",
    type=click.Choice(["validation", "test", "train"]),
    default="validation",
    show_default=True,
    help="Which rows.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows.")
@click.option("--max-tokens", type=int, metavar="N", help="Longest answer, in tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    adapter: str | None,
    split: "Split",
    limit: int | None,
    max_tokens: int | None,
    as_json: bool,
) -> None:
    """Measure a model, and an adapter beside it, on a split of a data set.

    Loss (nats a token) and perplexity are those of the supervised tokens; exact match (0 to 1)
    and chrF (0 to 100) compare greedy answers with the references.

    With --config, such as the config.yaml of an output folder, everything defaults from it: the
    model, the data and how it is read and split, and the adapter in its output folder. Without it,
    data and settings are those of the run that made the adapter, unless --data, --model or --set
    say otherwise.
    """
    if max_tokens is not None:
        overrides = (*overrides, f"train.generation_max_new_tokens={max_tokens}")
    config = configuration(file, overrides)
    named = "model_name_or_path" in config.model.fields_set
    if file is None and not named and adapter is None:
        raise click.UsageError("Name a model with --model, an adapter with --adapter, or --config.")
    if adapter is None and file is not None:
        adapter = _trained(Path(config.train.output_dir))

    from mlx_yoda.recipes.compare import compare
    from mlx_yoda.recipes.respond import another_base, interrupted, open_responder

    if adapter is not None and (note := interrupted(adapter)):
        remark(note)
    config, rows = _read(config, None if file else adapter, split, limit)
    responder = open_responder(config.model, adapter, base_of_adapter=not named)
    for note in filter(None, (another_base(responder), *responder.base.notes)):
        remark(note)
    remark(f"Measuring {len(rows)} rows of {config.data.dataset_name} ({split}) …")
    comparison = compare(responder, rows, config)
    for note in comparison.notes:
        remark(note)
    if as_json:
        say(json.dumps({"split": split, **asdict(comparison)}, indent=2))
    else:
        say(_table(comparison))


def _read(
    config: Config, adapter: str | None, split: "Split", limit: int | None
) -> tuple[Config, "list[Conversation]"]:
    """The settings and the rows to measure with; those of an adapter's run where it is a run's."""
    from mlx_yoda.recipes.compare import as_trained, read_split
    from mlx_yoda.recipes.respond import settings_file

    settings = settings_file(adapter) if adapter else None
    if settings is None:
        return config, read_split(config, split, limit)
    from mlx_yoda.config.parse import load_config

    run = load_config(settings)
    config = as_trained(config, run)
    theirs = config.data.dataset_name == run.data.dataset_name
    what = "Data and settings are" if theirs else "Settings are"
    remark(f"{what} those of {settings}; --data, --set and --config change them.")
    try:
        return config, read_split(config, split, limit)
    except UserError as error:
        if not theirs:
            raise
        place = f"The data is named in {settings}, as seen from the folder where it was trained"
        raise UserError(f"{error} {place}: name it with --data.") from error


def _trained(output_dir: Path) -> str | None:
    """The adapter that a configuration's run has left, if it has."""
    from mlx_yoda.recipes.respond import interrupted

    if (output_dir / "adapter_config.json").is_file() or interrupted(str(output_dir)):
        return str(output_dir)
    remark(f"There is no adapter in {output_dir}: measuring the base alone.")
    return None


def _table(comparison: "Comparison") -> str:
    titles = ["base", "adapter"] if comparison.adapter else ["base"]
    measured = [m for m in (comparison.base, comparison.adapter) if m]
    rows = [
        _line("", titles),
        _line("loss", [f"{m.loss:.4f}" for m in measured]),
        _line("perplexity", [f"{m.perplexity:.3f}" for m in measured]),
    ]
    if comparison.questions:
        rows += [
            _line("exact match", [f"{m.exact_match:.3f}" for m in measured]),
            _line("chrF", [f"{m.chrf:.1f}" for m in measured]),
        ]
    return "\n".join([*rows, f"{comparison.rows} rows, {comparison.tokens} tokens"])


def _line(name: str, cells: list[str]) -> str:
    return f"{name:12}" + "".join(f"{cell:>12}" for cell in cells)
