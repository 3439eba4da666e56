"""Trainers against each other: the same base, rows, examples an update and real tokens.

python -m benchmarks.train --tokenizer ../shared/data/phi-3-mini-4k-instruct \\
    --data ../shared/data/yoda_sentences/yoda_sentences.csv --rounds 3

Each contender runs one epoch in a process of its own, in turn, for several rounds; a step in each
shape comes first and is not counted. The base is a Phi-3 with random weights unless --model names
a folder. The report goes to benchmarks/results/ as JSON, Markdown and SVG.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.contenders.job import Job
from benchmarks.contenders.machine import machine
from benchmarks.contenders.material import Sizes, prepare
from benchmarks.contenders.report import Report, save
from benchmarks.contenders.rounds import CONTENDERS, run_rounds
from mlx_yoda.errors import UserError

_DEFAULT = ("mlx-yoda", "mlx-yoda packed", "mlx-yoda checkpointed", "mlx-lm",
            "mlx-lm checkpointed", "Transformers + PEFT")  # fmt: skip
_RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = _measure(options, Path(folder))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    for path in save(report, options.output):
        sys.stderr.write(f"{path}\n")
    sys.stdout.write(report.markdown())


def _measure(options: argparse.Namespace, folder: Path) -> Report:
    sizes = Sizes(
        options.hidden_size,
        options.intermediate_size,
        options.layers,
        options.heads,
        options.vocab_size,
    )
    material = prepare(
        folder,
        model=options.model,
        tokenizer=options.tokenizer,
        data=options.data,
        sizes=sizes,
        train_on=options.train_on,
        max_length=options.max_length,
        rows=options.rows,
        held_out=options.held_out,
        batch_size=options.batch_size,
        dtype=options.dtype,
    )
    job = Job(
        contender="",
        program="",
        model=str(material.model),
        rows=str(material.rows),
        dtype=options.dtype,
        batch_size=options.batch_size,
        max_length=options.max_length,
        dropout=options.dropout,
        rank=options.rank,
    )
    jobs = [replace(job, contender=name, **CONTENDERS[name]) for name in options.contenders]
    if options.no_compile:
        jobs = [replace(job, compile=False) for job in jobs]
    runs = run_rounds(jobs, options.rounds, folder, told=sys.stderr.write)
    asked = {name: value for name, value in vars(options).items() if name != "output"}
    asked["contenders"] = ", ".join(options.contenders)
    settings = {name: str(value) for name, value in asked.items() if value is not None}
    return Report(machine(), settings | material.facts(), runs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train",
        description="Time, memory and held-out loss of one epoch of LoRA by several trainers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--contenders", type=_names, default=list(_DEFAULT), metavar="A,B,...",
                        help=f"out of: {', '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each contender")
    parser.add_argument("--batch-size", type=int, default=4, help="examples of an update")
    parser.add_argument("--rows", type=int, default=96, help="rows to train on, 0 for all")
    parser.add_argument("--held-out", type=int, default=24, help="rows for the loss at the end")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a row, at most")
    parser.add_argument("--train-on", choices=("completions", "all"), default="completions")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--no-compile", action="store_true", help="for contenders that compile")
    parser.add_argument("--data", help="file of rows; the demo's if not given")
    parser.add_argument("--model", type=Path, help="folder of a base; random weights if not given")
    parser.add_argument("--tokenizer", type=Path, help="folder; for random weights, the demo's")
    random = parser.add_argument_group("sizes of the random base, Phi-3-mini's but for depth")
    random.add_argument("--hidden-size", type=int, default=3072)
    random.add_argument("--intermediate-size", type=int, default=8192)
    random.add_argument("--layers", type=int, default=2)
    random.add_argument("--heads", type=int, default=32)
    random.add_argument("--vocab-size", type=int, default=32064 // 16,
                        help="ids of the rows are renumbered where it is too small")  # fmt: skip
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder of the report")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no contender; there are {', '.join(CONTENDERS)}"
            )
    return names


if __name__ == "__main__":
    main()
