"""`mlx-yoda train`."""

from pathlib import Path

import click

from mlx_yoda.cli.command import remark, say
from mlx_yoda.cli.settings import (
    Configured,
    all_settings,
    config_options,
    configuration,
    settings_help,
)

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
    except KeyboardInterrupt:
        if story.checkpoint:
            remark(f"Interrupted; the same command with --resume goes on from {story.checkpoint}.")
        raise
    say(summary(config, story))
