"""Phi-3-mini at its full size on this machine: what loading and one training step really take.

    python -m benchmarks.full_size /tmp/full            # all cases; about an hour on two CPU cores
    python -m benchmarks.full_size /tmp/full --case "4 bits, 1 x 64" --layers 4

Writes a Phi-3-mini with random weights (3.8 billion, 7.6 GB in bfloat16, in shards as Hugging Face
has them) into the folder if it is not there. Each case then runs in a process of its own, through
what `mlx-yoda train` calls: the base is loaded, LoRA put in, the run fitted to the machine, and
one optimizer step taken by the loop. Peaks are MLX's own count and the process's resident memory
beyond what Python and the libraries took before; the plan's is what `mlx-yoda plan` says.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import mlx.core as mx  # noqa: E402  a fast BLAS must come before it
import mlx.nn as nn  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_reduce  # noqa: E402

from benchmarks.random_phi3 import write_random_phi3  # noqa: E402
from mlx_yoda.config.parse import load_config  # noqa: E402
from mlx_yoda.config.schema import Config  # noqa: E402
from mlx_yoda.data.packing import Packed, PackedRows  # noqa: E402
from mlx_yoda.lora.binding import adapter_of  # noqa: E402
from mlx_yoda.recipes.fitting import fit_to_machine  # noqa: E402
from mlx_yoda.recipes.forecast import forecast  # noqa: E402
from mlx_yoda.recipes.start import model_to_train  # noqa: E402
from mlx_yoda.report.events import Event, Stepped  # noqa: E402
from mlx_yoda.train.loop import train  # noqa: E402
from mlx_yoda.train.meter import Meter  # noqa: E402
from mlx_yoda.train.step import State  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PHI3_MINI = ROOT / "../shared/data/phi-3-mini-4k-instruct"


@dataclass(frozen=True)
class Case:
    """A way to load Phi-3-mini and train it by one row.

    Attributes:
        bits: of a weight; None leaves the 16 that are stored.
        length: tokens of the row.
        checkpointing: whether whole layers are recomputed.
        dtype: of activations, scales and biases; None leaves bfloat16. This backend computes
            quantised products in float32 eight times as fast as in half precision.
    """

    bits: int | None
    length: int
    checkpointing: bool = False
    dtype: str | None = None


CASES = {
    "4 bits, 1 x 64": Case(4, 64),
    "16 bits, 1 x 64": Case(None, 64),
    "4 bits, 1 x 256, checkpointing, float32": Case(4, 256, checkpointing=True, dtype="float32"),
}


@dataclass(frozen=True)
class Measured:
    """What a case took, in bytes, and how long, in seconds.

    Attributes:
        weights: of the base as it was loaded.
        load_peak, load_resident: while loading, by MLX's count and by the system's.
        step_peak, step_resident: from the start of the process to the end of the step.
        planned: the peak that the plan says the step has.
        planned_bfloat16: the same of activations and scales in 16 bits.
        loss: of the step, in nats a token.
    """

    weights: int
    load_peak: int
    load_resident: int
    load_seconds: float
    step_peak: int
    step_resident: int
    step_seconds: float
    planned: int
    planned_bfloat16: int
    loss: float


def configuration(model: Path, case: Case) -> Config:
    """The run of a case: one row, one step."""
    return load_config(
        None,
        [
            f"model.model_name_or_path={model}",
            f"model.quantization={case.bits or 'null'}",
            f"model.dtype={case.dtype or 'null'}",
            f"data.max_length={case.length}",
            f"train.gradient_checkpointing={str(case.checkpointing).lower()}",
            "train.per_device_train_batch_size=1",
            "train.auto_find_batch_size=false",  # a step is slow enough without a trial
            "train.max_steps=1",
        ],
    )


def measure(model: Path, case: Case) -> Measured:
    """Load, fit and train one step in this process."""
    config = configuration(model, case)
    before = resident()
    started = time.perf_counter()
    config, base, layers = model_to_train(config)
    load_seconds, load_peak, load_resident = time.perf_counter() - started, peak(), resident()
    rows = _rows(case.length, base.config["vocab_size"])
    plan, steps, _ = fit_to_machine(config, base, layers, rows, _ignore)
    said: list[Event] = []
    state = State.fresh(adapter_of(layers))
    train(state, plan, steps, config.train, Meter(), said.append, lambda *_: False)
    (step,) = (event for event in said if isinstance(event, Stepped))
    return Measured(
        weights=_weight_bytes(base.model),
        load_peak=load_peak,
        load_resident=load_resident - before,
        load_seconds=load_seconds,
        step_peak=peak(),
        step_resident=resident() - before,
        step_seconds=step.seconds,
        planned=_planned(config),
        planned_bfloat16=_planned(replace(config, model=replace(config.model, dtype="bfloat16"))),
        loss=step.loss,
    )


def peak() -> int:
    """MLX's own count since the process began."""
    return mx.get_peak_memory()


def resident() -> int:
    """The most that was resident of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with the parent's
        (line,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(line) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_base(folder: Path, layers: int | None) -> Path:
    """The random Phi-3-mini, written if it is not there yet."""
    name = "phi3-mini" if layers is None else f"phi3-mini-{layers}-layers"
    model = folder / name
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((PHI3_MINI / "config.json").read_text(encoding="utf-8"))
        config |= {} if layers is None else {"num_hidden_layers": layers}
        write_random_phi3(model, config, tokenizer=PHI3_MINI, dtype="bfloat16")
    return model


def table(found: dict[str, Measured]) -> str:
    """What was measured, in GB and seconds, a line a case."""
    columns = (
        ("weights", lambda m: f"{m.weights / 1e9:.2f}"),
        ("load: MLX", lambda m: f"{m.load_peak / 1e9:.2f}"),
        ("resident", lambda m: f"{m.load_resident / 1e9:.2f}"),
        ("s", lambda m: f"{m.load_seconds:.0f}"),
        ("step: MLX", lambda m: f"{m.step_peak / 1e9:.2f}"),
        ("resident", lambda m: f"{m.step_resident / 1e9:.2f}"),
        ("s", lambda m: f"{m.step_seconds:.0f}"),
        ("plan", lambda m: f"{m.planned / 1e9:.2f}"),
        ("plan, bfloat16", lambda m: f"{m.planned_bfloat16 / 1e9:.2f}"),
    )
    lines = [f"{'GB':40}" + "".join(f"{title:>{_width(title)}}" for title, _ in columns)]
    for name, m in found.items():
        lines.append(
            f"{name:40}" + "".join(f"{cell(m):>{_width(title)}}" for title, cell in columns)
        )
    return "\n".join(lines) + "\n"


def _width(title: str) -> int:
    return max(7, len(title) + 2)


def _planned(config: Config) -> int:
    chosen = forecast(config).chosen
    return chosen.demand.peak if chosen else 0


def _rows(length: int, vocabulary: int) -> PackedRows:
    """One row, half of it supervised."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, length).astype(np.int32)
    return PackedRows.of([Packed(tokens, np.arange(length) >= length // 2, (length,))])


def _weight_bytes(model: nn.Module) -> int:
    return _bytes(model.parameters()) - _bytes(model.trainable_parameters())


def _bytes(tree: dict) -> int:
    return tree_reduce(lambda total, array: total + array.nbytes, tree, 0)


def _ignore(_: Event) -> None:
    """Nobody watches."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size")
    parser.add_argument("folder", type=Path, help="where the model is, or is written (7.6 GB)")
    parser.add_argument("--case", choices=[*CASES], action="append", help="only this one")
    parser.add_argument("--layers", type=int, help="decoder layers, for a shorter run")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    model = write_base(options.folder, options.layers)
    if options.here:
        sys.stdout.write(json.dumps(asdict(measure(model, CASES[options.case[0]]))))
        return
    found: dict[str, Measured] = {}
    for name in options.case or CASES:
        command = [sys.executable, "-m", "benchmarks.full_size", str(options.folder), "--here"]
        command += ["--layers", str(options.layers)] if options.layers else []
        command += ["--case", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found[name] = Measured(**json.loads(done.stdout))
        sys.stdout.write(table(found))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
