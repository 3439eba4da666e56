"""The memory plan beside what MLX's allocator counts, over widths, depths, batches and lengths.

python -m benchmarks.memory            # the whole grid, as a table
"""

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import mlx.core as mx  # noqa: E402  a fast BLAS must come before it
import numpy as np  # noqa: E402
from mlx_lm.models import phi3  # noqa: E402

from mlx_yoda.config.schema import LoraConfig, TrainConfig  # noqa: E402
from mlx_yoda.data.batches import collate, needed  # noqa: E402
from mlx_yoda.data.packing import Packed  # noqa: E402
from mlx_yoda.data.shapes import Shape, choose_shapes  # noqa: E402
from mlx_yoda.lora.binding import adapter_of  # noqa: E402
from mlx_yoda.lora.inject import inject  # noqa: E402
from mlx_yoda.model.sizes import sizes_of  # noqa: E402
from mlx_yoda.train.forward import Arrays, forward_of  # noqa: E402
from mlx_yoda.train.memory import Demand, demand  # noqa: E402
from mlx_yoda.train.recompute import Keep  # noqa: E402
from mlx_yoda.train.step import State, Sums, make_steps  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A model, a batch, and what its layers keep."""

    width: int
    layers: int
    rows: int
    length: int
    vocabulary: int
    keep: Keep
    dropout: float
    dora: bool = False

    @property
    def config(self) -> dict[str, int | float | str]:
        """The model as config.json has it."""
        return {
            "model_type": "phi3",
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.width * 8 // 3 // 32 * 32,
            "num_attention_heads": max(4, self.width // 64),
            "rms_norm_eps": 1e-5,
            "vocab_size": self.vocabulary,
            "torch_dtype": "float32",
        }


def grid() -> Iterator[Case]:
    """Widths, depths, batches and lengths, with and without recomputation."""
    batches = ((2, 64), (8, 64), (4, 256), (1, 512))
    for width, layers, (rows, length), keep in product((128, 256, 512), (2, 6), batches, Keep):
        yield Case(width, layers, rows, length, 8000, keep, 0.0)
        yield Case(width, layers, rows, length, 1000, keep, 0.05)


def unseen() -> Iterator[Case]:
    """Cases between and beyond those that the plan's constants were fitted to."""
    shapes = ((384, 4, 3, 160), (192, 8, 16, 48), (640, 3, 2, 384))
    for (width, layers, rows, length), keep in product(shapes, Keep):
        yield Case(width, layers, rows, length, 4000, keep, 0.1)
    for keep in Keep:
        yield Case(384, 4, 3, 160, 4000, keep, 0.1, dora=True)


def measure(case: Case) -> tuple[int, Demand]:
    """One optimizer step: the peak above what was there before the model, and the plan's."""
    mx.clear_cache()
    gc.collect()
    before = mx.get_active_memory()
    mx.random.seed(0)
    model = phi3.Model(phi3.ModelArgs.from_dict(case.config))
    model.freeze()
    lora = LoraConfig(lora_dropout=case.dropout, use_dora=case.dora)
    layers = inject(model, lora, mx.random.key(0))
    batch = collate([_row(case, i) for i in range(case.rows)], choose_shapes([_need(case)]))
    steps = make_steps(TrainConfig(), layers, forward_of(model, case.keep), compiled=False)
    state = State.fresh(adapter_of(layers))
    mx.eval(model.parameters(), state.adapter, state.moments)

    mx.reset_peak_memory()
    sums = Sums.zero(state.adapter)
    sums = steps.accumulate(sums, state.adapter, Arrays.of(batch), mx.random.key(1))
    mx.eval(sums)
    mx.eval(steps.update(sums, state.adapter, state.moments, mx.array(1e-4), mx.array(1.0)))
    plan = demand(
        sizes_of(case.config, lora),
        _need(case),
        (case.keep,) * case.layers,
        dropout=case.dropout > 0,
    )
    return mx.get_peak_memory() - before, plan


def _row(case: Case, seed: int) -> Packed:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, case.vocabulary, case.length).astype(np.int32)
    supervised = np.arange(case.length) >= case.length // 2
    return Packed(tokens, supervised, (case.length,))


def _need(case: Case) -> Shape:
    return needed([_row(case, i) for i in range(case.rows)])


def main() -> None:
    """Print the table and the largest error."""
    worst = 0.0
    sys.stdout.write(" width layers  batch   vocab keep         measured   plan    error\n")
    for case in (*grid(), *unseen()):
        measured, plan = measure(case)
        error = plan.peak / measured - 1
        worst = max(worst, abs(error))
        sys.stdout.write(
            f"{case.width:6} {case.layers:6} {case.rows:2}x{case.length:<4} {case.vocabulary:7} "
            f"{case.keep.name:10} {measured / 1e6:8.1f} MB {plan.peak / 1e6:8.1f} MB "
            f"{error:+7.1%}\n"
        )
    sys.stdout.write(f"largest error {worst:.1%}\n")


if __name__ == "__main__":
    main()
