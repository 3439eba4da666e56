"""`mlx-yoda train`."""

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_yoda.cli.command import program, remark, say
from mlx_yoda.cli.settings import (
    Configured,
    all_settings,
    config_options,
    configuration,
    settings_help,
)
from mlx_yoda.config.schema import Config

if TYPE_CHECKING:
    from mlx_yoda.report.events import Event
    from mlx_yoda.train.group import Group

_NEWEST = "newest"
_EXAMPLES = """\
mlx-yoda train --config demo
mlx-yoda train --model microsoft/Phi-3-mini-4k-instruct --data dvgodoy/yoda_sentences
mlx-yoda train --config demo --output-dir outputs/r16 --r 16 --learning-rate 1e-3
mlx-yoda train --config outputs/r16/config.yaml --resume
mlx-yoda train --data rows.csv --prompt-column question --completion-column reply
"""


@click.command("train", cls=Configured, epilog=_EXAMPLES)
@config_options
@all_settings("model.model_name_or_path", "data.dataset_name", "train.output_dir")
@click.option("--overwrite", is_flag=True, help="Replace the run in the output folder.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value=_NEWEST,
    metavar="[DIR]",
    help="Go on from the newest intact checkpoint in the output folder (or in DIR), or from DIR.",
)
@click.option(
    "--force", is_flag=True, help="Resume although settings, data or base have changed since."
)
@click.option("--quiet", is_flag=True, help="Show nothing but the last words and errors.")
@click.option("--json", "as_json", is_flag=True, help="Write each event as a line of JSON.")
@settings_help
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    overwrite: bool,
    resume: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fine-tune a model with LoRA.

    The configuration is the defaults, then the file of --config, then --set, then the options.
    The output folder becomes a PEFT adapter: Transformers loads it as it is. It also gets
    config.yaml, which repeats the run, metrics.jsonl, report.html, and checkpoints to go on from.

    Progress goes to standard error: a panel on a terminal, else a line an interval. With --json
    standard output has each event instead of the last words, as metrics.jsonl has them.
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite and --resume exclude each other; give one of them.")
    if force and not resume:
        raise click.UsageError("--force is for --resume; give both, or --overwrite.")
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude each other; give one of them.")
    checkpoint = Path(resume) if resume and resume != _NEWEST else bool(resume)

    from mlx_yoda.recipes.interruption import Interrupted
    from mlx_yoda.recipes.joining import joined

    try:
        with joined() as group:
            options = {"resume": checkpoint, "overwrite": overwrite, "force": force}
            _run(configuration(file, overrides), group, options, quiet=quiet, as_json=as_json)
    except Interrupted as interrupted:
        raise click.exceptions.Exit(128 + interrupted.signum) from None


def _run(
    config: Config, group: "Group", options: dict[str, Any], *, quiet: bool, as_json: bool
) -> None:
    """Train; of several processes the first one alone says anything."""
    from mlx_yoda.cli.summary import Story, summary
    from mlx_yoda.recipes.finetune import finetune
    from mlx_yoda.recipes.interruption import Interrupted
    from mlx_yoda.report.console import Console
    from mlx_yoda.report.events import both

    story = Story()
    others = (story, _tell_json) if as_json else (story,)
    try:
        with nullcontext() if quiet or as_json else Console() as console:
            reporter = both(*others, *filter(None, [console]))
            finetune(config, reporter=reporter, group=group, **options)
    except Interrupted as interrupted:
        if group.leads:
            after = "at once" if interrupted.step is None else f"after step {interrupted.step}"
            remark(f"Stopped {after}. {_way_on(config)}")
        raise
    except BrokenPipeError:
        remark(f"Stopped: nobody reads standard output any more. {_way_on(config)}")
        raise
    except KeyboardInterrupt:
        if group.leads:
            remark(_way_on(config))
        raise
    if group.leads and not as_json:
        say(summary(config, story))


def _way_on(config: Config) -> str:
    """How to go on with a run that was stopped."""
    from mlx_yoda.train.checkpoint import checkpoints

    folder = Path(config.train.output_dir)
    if not (found := checkpoints(folder)):
        return "There is no checkpoint to go on from."
    again = [*program(), "train", "--config", str(folder / "config.yaml"), "--resume"]
    return f"The newest checkpoint is {found[-1]}; go on from it with:\n  {shlex.join(again)}"


def _tell_json(event: "Event") -> None:
    from mlx_yoda.report.jsonl import as_line, is_told

    if is_told(event):
        say(as_line(event))
