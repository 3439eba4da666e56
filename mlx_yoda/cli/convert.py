"""`mlx-yoda convert`."""

import shlex
from dataclasses import replace
from pathlib import Path

import click

from mlx_yoda.cli.command import complete_path, program, remark
from mlx_yoda.cli.settings import Configured, configuration, settings

_EXAMPLES = """\
mlx-yoda convert microsoft/Phi-3-mini-4k-instruct models/phi3-4bit --quantize 4
mlx-yoda convert microsoft/Phi-3-mini-4k-instruct models/phi3-bf16 --dtype bfloat16
mlx-yoda convert models/phi3-bf16 models/phi3-8bit --quantize '{bits: 8, group_size: 32}'
mlx-yoda convert models/phi3-bf16 models/phi3-mxfp4 --quantize mxfp4
"""


@click.command(
    "convert", cls=Configured, epilog=_EXAMPLES, short_help="Quantise a model, or change its dtype."
)
@click.argument("source", shell_complete=complete_path)
@click.argument("dest", type=click.Path(path_type=Path))
@settings("model.quantization", "model.dtype")
@click.option(
    "--group-size", type=int, metavar="N", help="Weights that share a scale, with --quantize."
)
@click.option("--revision", metavar="TEXT", help="Branch, tag or commit on the Hub.")
@click.option("--trust-remote-code", is_flag=True, help="Allow code that ships with the model.")
def command(
    source: str,
    dest: Path,
    group_size: int | None,
    revision: str | None,
    trust_remote_code: bool,
) -> None:
    """Write SOURCE, a folder or Hub id in Hugging Face layout, to the new folder DEST for MLX.

    All commands read Hugging Face's layout as it is, and quantise it on load if they are told to;
    converting does it once, and takes less of the disk.
    """
    model = configuration().model
    quantization = model.quantization
    if group_size is not None:
        if quantization is None:
            raise click.UsageError("--group-size goes with --quantize.")
        quantization = replace(quantization, group_size=group_size)

    from mlx_yoda.model.convert import convert
    from mlx_yoda.model.load import is_here
    from mlx_yoda.report.words import size

    work = "quantising" if quantization else "converting"
    remark(f"{work} {source}{'' if is_here(source) else ', from the Hub if it is not here yet'} …")
    convert(
        source,
        dest,
        quantization=quantization,
        dtype=model.dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    written = sum(file.stat().st_size for file in dest.iterdir() if file.is_file())
    remark(f"Wrote {dest} ({size(written)}). Try it:")
    remark(f"  {shlex.join([*program(), 'chat', '--model', str(dest)])}")
