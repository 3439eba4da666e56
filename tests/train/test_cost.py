"""What a step costs, beside the products that its own graph holds."""

import re
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import phi3

from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.sizes import Sizes, sizes_of
from mlx_yoda.train.cost import Amount, Speed, Work, update, work
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.recompute import Keep
from mlx_yoda.train.step import State, Sums, make_steps

CONFIG = {
    "model_type": "phi3",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 500,
    "torch_dtype": "float32",
}
LENGTH, ROWS = 24, 2


def rows() -> list[Packed]:
    supervised = np.arange(LENGTH) >= LENGTH // 2
    return [Packed(np.arange(1, LENGTH + 1, dtype=np.int32), supervised, (LENGTH,))] * ROWS


def every_product(sizes: Sizes, keep: Keep) -> Iterator[float]:
    """The operations of each matrix product of a step, one after another."""
    d, q, f = sizes.hidden, sizes.qkv, sizes.intermediate
    tokens, targets = ROWS * LENGTH, ROWS * LENGTH // 2
    yield from [2 * targets * d * sizes.vocabulary] * 2
    for layer in range(sizes.layers):
        after = targets if layer == sizes.layers - 1 else tokens
        linears = [(tokens, d, q), (after, d, d), (after, d, 2 * f), (after, f, d)]
        again = {Keep.ATTENTION: (2,), Keep.INPUT: (0, 1, 2)}.get(keep, ())
        for number, (n, wide, out) in enumerate(linears):
            a, b = 2 * n * 8 * wide, 2 * n * 8 * out  # products with A `(8, in)`, B `(out, 8)`
            forward = [2 * n * wide * out, a, b]
            yield from forward
            yield from forward if number in again else []
            yield from [b, a, a, b]  # through B, for A, and twice for B
            if layer or number:  # nobody asks for the gradient of the embedding
                yield from [2 * n * wide * out, a]
        passes = 3 if keep is Keep.EVERYTHING else 4  # forward, backward twice, and again
        yield from [2 * d * ROWS * LENGTH**2] * 2 * passes


@pytest.mark.parametrize("keep", Keep)
def test_the_products_are_those_of_the_step_s_graph(keep, tmp_path):
    model = phi3.Model(phi3.ModelArgs.from_dict(CONFIG))
    layers = inject(model, LoraConfig(lora_dropout=0.0), mx.random.key(0))
    steps = make_steps(TrainConfig(), layers, forward_of(model, keep), compiled=False)
    adapter = State.fresh(adapter_of(layers)).adapter
    batch = Arrays.of(collate(rows(), choose_shapes([needed(rows())])))
    sums = steps.accumulate(Sums.zero(adapter), adapter, batch, mx.random.key(1))
    graph = tmp_path / "graph.dot"
    mx.export_to_dot(str(graph), *(array for _, array in tree_flatten(sums._asdict())))
    found = re.findall(r'label ?= ?"Matmul', graph.read_text())

    assert len(found) == len(list(every_product(sizes_of(CONFIG, LoraConfig()), keep)))


@pytest.mark.parametrize("keep", Keep)
def test_the_count_is_their_sum(keep):
    """At Phi-3-mini's width, but for what is rounded of the small matrices of LoRA."""
    wide = {"hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32}
    sizes = sizes_of(CONFIG | wide, LoraConfig())
    found = work(sizes, Amount.of(PackedRows.of(rows())), (keep,) * sizes.layers, dropout=False)
    assert found.products == pytest.approx(sum(every_product(sizes, keep)), rel=2e-3)


def test_what_is_kept_is_not_passed_over_again():
    sizes, amount = sizes_of(CONFIG, LoraConfig()), Amount.of(PackedRows.of(rows()))
    costs = [work(sizes, amount, (keep,) * 3, dropout=False) for keep in Keep]
    assert [cost.products for cost in costs] == sorted(cost.products for cost in costs)
    assert costs[0].elements < costs[1].elements <= costs[3].elements
    dropped = work(sizes, amount, (Keep.SOURCES,) * 3, dropout=True)
    assert dropped.products == costs[1].products
    assert dropped.elements > costs[1].elements


def test_it_grows_with_the_tokens_and_not_with_the_layers_below():
    sizes, amount = sizes_of(CONFIG, LoraConfig()), Amount.of(PackedRows.of(rows()))
    keep = (Keep.SOURCES,) * 3
    once, twice = (
        work(sizes, Amount.of(PackedRows.of(rows() * k)), keep, dropout=True) for k in (1, 2)
    )
    assert twice == pytest.approx((2 * once.products, 2 * once.elements))
    upper = sizes_of(CONFIG, LoraConfig(layers_to_transform=[2]))
    assert work(upper, amount, keep, dropout=True).products < 0.5 * once.products


def test_seconds_are_work_over_speed():
    assert Speed(10.0, 4.0).seconds(Work(20.0, 2.0)) == 2.5
    sizes = sizes_of(CONFIG, LoraConfig())
    assert update(sizes).elements > sizes.adapter
