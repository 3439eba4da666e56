"""How long Phi-3-mini's training takes on which chip: the README's table of predictions.

python -m benchmarks.chips       # writes it between the README's markers

    seconds = operations / (share x GPU cores x 128 x 2 x clock)

Each of a core's 128 units multiplies and adds once a tick. The operations are what
`mlx_yoda.train.cost` counts; the share of the chip that training reaches is what the two figures
published for LoRA on MLX reach. Nothing here was measured on a Mac; `mlx-yoda plan` measures the
Mac it runs on.
"""

from typing import NamedTuple

from benchmarks.macs import PHI3_MINI
from benchmarks.readme import write
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.model.sizes import sizes_of
from mlx_yoda.report.words import duration
from mlx_yoda.train.cost import Amount, work
from mlx_yoda.train.recompute import Keep

YODA = Amount(tokens=21_801, targets=12_023, pairs=674_859)
"""The 720 rows of dvgodoy/yoda_sentences in Phi-3's tokens, answers supervised."""


class Chip(NamedTuple):
    """A GPU."""

    name: str
    cores: int
    clock: float  # GHz

    @property
    def peak(self) -> float:
        """Floating-point operations a second, at the most."""
        return self.cores * 128 * 2 * self.clock * 1e9


CHIPS = (
    Chip("M1", 8, 1.278),
    Chip("M1 Pro", 16, 1.296),
    Chip("M1 Max", 32, 1.296),
    Chip("M2", 10, 1.398),
    Chip("M2 Max", 38, 1.398),
    Chip("M2 Ultra", 76, 1.398),
    Chip("M3", 10, 1.398),
    Chip("M3 Pro", 18, 1.398),
    Chip("M3 Max", 40, 1.398),
    Chip("M4", 10, 1.578),
    Chip("M4 Pro", 20, 1.578),
    Chip("M4 Max", 40, 1.578),
)


class Published(NamedTuple):
    """Somebody's LoRA training with MLX.

    Attributes:
        chip: which GPU.
        rate: tokens a second.
        layer, head: weights of a decoder layer, and of the head.
        adapted: how many of the 32 layers a gradient passed.
        source: where it stands.
    """

    chip: Chip
    rate: float
    layer: int
    head: int
    adapted: int
    source: str

    @property
    def share(self) -> float:
        """Of what the chip can do at the most."""
        forward, backward = 32 * self.layer + self.head, self.adapted * self.layer + self.head
        return self.rate * 2 * (forward + backward) / self.chip.peak


MISTRAL_7B = 4096 * 6144 + 4096**2 + 3 * 4096 * 14336
LLAMA_7B = 4 * 4096**2 + 3 * 4096 * 11008
PUBLISHED = (
    Published(CHIPS[2], 250, MISTRAL_7B, 4096 * 32000, 4, "mlx-lm's LORA.md"),
    Published(CHIPS[5], 475, LLAMA_7B, 4096 * 32000, 16, "mlx-examples' lora/README.md"),
)


def share() -> float:
    """Of a chip's peak, what training is taken to reach: the mean of the published figures."""
    return sum(published.share for published in PUBLISHED) / len(PUBLISHED)


def epoch(chip: Chip, keep: Keep) -> float:
    """Seconds of an epoch of the Yoda rows."""
    sizes = sizes_of(PHI3_MINI, LoraConfig())
    spent = work(sizes, YODA, (keep,) * sizes.layers, dropout=True)
    return spent.products / (share() * chip.peak)


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| chip | GPU cores x clock | peak | tokens a second | an epoch of the 720 rows | "
        "with all layers made again |",
        "|---|---|---|---|---|---|",
    ]
    for chip in CHIPS:
        usual, again = epoch(chip, Keep.EVERYTHING), epoch(chip, Keep.INPUT)
        lines.append(
            f"| {chip.name} | {chip.cores} x {chip.clock:.3f} GHz | {chip.peak / 1e12:.1f} TFLOP/s "
            f"| {YODA.tokens / usual:.0f} | {duration(usual)} | {duration(again)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write("chips", table())
