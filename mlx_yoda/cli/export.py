"""`mlx-yoda export`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_yoda.cli.answering import MODEL
from mlx_yoda.cli.command import complete_path, program, remark
from mlx_yoda.cli.settings import Configured, configuration, is_chosen, settings

if TYPE_CHECKING:
    from mlx_yoda.recipes.export import Exported, Format

_EXAMPLES = """\
mlx-yoda export outputs/phi3-yoda yoda-peft --to peft
mlx-yoda export outputs/phi3-yoda/checkpoint-220 yoda-mlx --to mlx-lm
mlx-yoda export outputs/phi3-yoda phi3-yoda --to merged --dtype bfloat16
mlx-yoda export outputs/phi3-yoda yoda.gguf --to gguf
mlx-yoda export owner/some-adapter merged --to merged --model models/phi3-4bit
"""


@click.command(
    "export", cls=Configured, epilog=_EXAMPLES, short_help="Write an adapter for other programs."
)
@click.argument("source", shell_complete=complete_path)
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(["peft", "mlx-lm", "merged", "gguf"]),
    required=True,
    help="peft: a clean adapter folder; mlx-lm: for mlx_lm.generate --adapter-path; merged: the "
    "base with the adapter fused in, for Transformers and mlx-lm; gguf: for llama.cpp's --lora.",
)
@settings(MODEL, "model.model_revision", "model.dtype", "model.trust_remote_code")
@click.option(
    "--requantize",
    is_flag=True,
    help="With merged on a quantised base: quantise again instead of writing full weights.",
)
def command(source: str, dest: Path, to: "Format", requantize: bool) -> None:
    """Write the adapter SOURCE for another program, to the new folder (or GGUF file) DEST.

    SOURCE is an output folder, a checkpoint in it, or the folder or Hub id of any PEFT or mlx-lm
    adapter. It must fit its base, the one that the adapter names or --model: merging reads the
    base's weights, the other formats its config.json. Merged weights are added up in float32, then
    cast to the base's dtype or to --dtype. The base's are taken as they are stored, also if
    training quantised them on load.
    """
    if requantize and to != "merged":
        raise click.UsageError("--requantize goes with --to merged.")
    config = configuration()

    from mlx_yoda.recipes.export import export
    from mlx_yoda.recipes.respond import interrupted

    if note := interrupted(source):
        remark(note)
    exported = export(
        source,
        dest,
        to,
        config.model,
        base_of_adapter=not is_chosen(MODEL),
        requantize=requantize,
    )
    if exported.unchecked:
        remark(f"The adapter was not held against its base: {exported.unchecked}")
    _tell_losses(exported, requantize)
    remark(f"Wrote {dest}. Try it:")
    remark(f"  {_next(exported, source, to)}")


def _tell_losses(exported: "Exported", requantized: bool) -> None:
    """Say what quantising again costs, or would have cost."""
    losses = exported.losses.values()
    if not losses:
        return
    cosine = sum(loss.cosine for loss in losses) / len(losses)
    error = sum(loss.error for loss in losses) / len(losses)
    facts = f"cosine {cosine:.2f}, relative error {error:.2f}, mean of {len(losses)} layers"
    if requantized:
        remark(f"Quantising again changed the adapter's effect ({facts}; 1 and 0 are exact).")
    else:
        remark("The base is quantised: the merged weights are its unpacked ones.")
        remark(f"Quantised again, the adapter's effect would have been another ({facts}).")


def _next(exported: "Exported", source: str, to: "Format") -> str:
    """A command that uses what was written."""
    from mlx_yoda.model.load import resolve

    path, base = str(exported.path), str(resolve(exported.base or "BASE"))
    match to:
        case "peft":
            words = [*program(), "generate", "--adapter", path, "Hello"]
        case "mlx-lm":
            words = ["mlx_lm.generate", "--model", base, "--adapter-path", path, "-p", "Hello"]
        case "merged":
            words = [*program(), "chat", "--model", path]
        case "gguf":
            words = ["llama-cli", "-m", "BASE.gguf", "--lora", path]
    return shlex.join(words)
