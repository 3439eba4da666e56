"""Which Mac trains Phi-3-mini how: the README's table, from the memory plan.

python -m benchmarks.macs        # writes it between the README's markers

macOS lets a GPU hold about two thirds of a small Mac's memory and three quarters of a large one's
(`mx.device_info()["max_recommended_working_set_size"]` tells on the Mac itself); the plan leaves a
tenth of that free. Predictions, to be confirmed on Apple Silicon.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.readme import write
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.data.shapes import Shape
from mlx_yoda.errors import UserError
from mlx_yoda.model.sizes import sizes_of
from mlx_yoda.train.fit import Fit, choose
from mlx_yoda.train.recompute import Keep

PHI3_MINI: Mapping[str, Any] = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32064,
    "torch_dtype": "bfloat16",
}
MACS = (8, 16, 24, 32, 64)  # GB
BITS = (16, 4)
LENGTHS = (64, 512, 2048)  # tokens of a row
_ROWS = 16  # of an optimizer step


def working_set(gigabytes: int) -> int:
    """Bytes that the GPU of a Mac with so much memory may hold."""
    return int(gigabytes * 1e9 * (2 / 3 if gigabytes <= 32 else 3 / 4))


def fit(gigabytes: int, bits: int, length: int) -> Fit | None:
    """What the plan takes on that Mac, or None if nothing fits."""
    config = dict(PHI3_MINI)
    if bits < 16:
        config["quantization"] = {"bits": bits, "group_size": 64}
    try:
        return choose(
            sizes_of(config, LoraConfig()),
            lambda rows: Shape(rows * length, rows, length, rows * length // 2),
            _ROWS,
            checkpointing="auto",
            shrink=True,
            dropout=True,
            memory=working_set(gigabytes),
            fused_attention=True,
        )
    except UserError:
        return None


def table() -> str:
    """The table in Markdown."""
    columns = [(bits, length) for bits in BITS for length in LENGTHS]
    head = " | ".join(f"{bits} bits, {length} tokens" for bits, length in columns)
    lines = [f"| Mac | {head} |", "|---|" + "---|" * len(columns)]
    for mac in MACS:
        cells = " | ".join(_cell(fit(mac, *column)) for column in columns)
        lines.append(f"| {mac} GB | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(found: Fit | None) -> str:
    if found is None:
        return "no"
    again = sum(level is Keep.INPUT for level in found.keep)
    size = f"{found.demand.footprint / 1e9:.1f} GB"
    rows = f"{found.micro_batch} row{'s' * (found.micro_batch > 1)}"
    return f"{rows}, {size}" + (f", {again} layers again" if again else "")


if __name__ == "__main__":
    write("macs", table())
