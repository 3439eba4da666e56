"""`mlx-yoda train`."""

import shlex
from pathlib import Path

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

_NEWEST = "newest"
_EXAMPLES = """\
mlx-yoda train --config configs/demo.yaml
mlx-yoda train --model microsoft/Phi-3-mini-4k-instruct --data dvgodoy/yoda_sentences
mlx-yoda train --config configs/demo.yaml --output-dir outputs/r16 --r 16 --learning-rate 1e-3
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
@settings_help
def command(
    file: Path | None,
    overrides: tuple[str, ...],
    overwrite: bool,
    resume: str | None,
    force: bool,
) -> None:
    """Fine-tune a model with LoRA.

    The configuration is the defaults, then the file of --config, then --set, then the options.
    The output folder becomes a PEFT adapter: Transformers loads it as it is. It also gets
    config.yaml, which repeats the run, metrics.jsonl, and checkpoints to go on from.
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite and --resume exclude each other; give one of them.")
    if force and not resume:
        raise click.UsageError("--force is for --resume; give both, or --overwrite.")
    config = configuration(file, overrides)

    from mlx_yoda.cli.summary import Story, summary
    from mlx_yoda.recipes.finetune import finetune
    from mlx_yoda.recipes.interruption import Interrupted
    from mlx_yoda.report.console import Console
    from mlx_yoda.report.events import both

    story = Story()
    checkpoint = Path(resume) if resume and resume != _NEWEST else bool(resume)
    try:
        with Console() as console:
            finetune(
                config,
                reporter=both(console, story),
                resume=checkpoint,
                overwrite=overwrite,
                force=force,
            )
    except Interrupted as interrupted:
        after = "at once" if interrupted.step is None else f"after step {interrupted.step}"
        remark(f"Stopped {after}. {_way_on(config)}")
        raise click.exceptions.Exit(128 + interrupted.signum) from None
    except KeyboardInterrupt:
        remark(_way_on(config))
        raise
    say(summary(config, story))


def _way_on(config: Config) -> str:
    """How to go on with a run that was stopped."""
    from mlx_yoda.train.checkpoint import checkpoints

    folder = Path(config.train.output_dir)
    if not (found := checkpoints(folder)):
        return "There is no checkpoint to go on from."
    again = [*program(), "train", "--config", str(folder / "config.yaml"), "--resume"]
    return f"The newest checkpoint is {found[-1]}; go on from it with:\n  {shlex.join(again)}"
