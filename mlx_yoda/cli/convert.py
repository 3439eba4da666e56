"""`mlx-yoda convert`."""

import shlex
from pathlib import Path

import click

from mlx_yoda.cli.command import Command, program, remark

_EXAMPLES = """\
mlx-yoda convert microsoft/Phi-3-mini-4k-instruct models/phi3-4bit --quantize 4
mlx-yoda convert microsoft/Phi-3-mini-4k-instruct models/phi3-bf16 --dtype bfloat16
mlx-yoda convert models/phi3-bf16 models/phi3-8bit --quantize 8 --group-size 32
"""


@click.command(
    "convert", cls=Command, epilog=_EXAMPLES, short_help="Quantise a model, or change its dtype."
)
@click.argument("source")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--quantize", type=click.Choice(["4", "8"]), help="Bits a weight; none leaves them.")
@click.option(
    "--group-size",
    type=click.Choice(["32", "64", "128"]),
    default="64",
    show_default=True,
    help="Weights that share a scale, with --quantize.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Cast what is not quantised.",
)
@click.option("--revision", metavar="TEXT", help="Branch, tag or commit on the Hub.")
@click.option("--trust-remote-code", is_flag=True, help="Allow code that ships with the model.")
def command(
    source: str,
    dest: Path,
    quantize: str | None,
    group_size: str,
    dtype: str | None,
    revision: str | None,
    trust_remote_code: bool,
) -> None:
    """Write SOURCE, a folder or Hub id in Hugging Face layout, to the new folder DEST for MLX.

    Training and generating read Hugging Face's layout as it is; converting is for fewer bits or
    another dtype.
    """
    from mlx_yoda.model.convert import convert
    from mlx_yoda.report.words import size

    work = f"quantising to {quantize} bits" if quantize else "converting"
    remark(f"{work} {source}, from the Hub if it is not here yet …")
    convert(
        source,
        dest,
        bits=int(quantize) if quantize else None,
        group_size=int(group_size),
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    written = sum(file.stat().st_size for file in dest.iterdir() if file.is_file())
    remark(f"Wrote {dest} ({size(written)}). Try it:")
    remark(f"  {shlex.join([*program(), 'chat', '--model', str(dest)])}")
