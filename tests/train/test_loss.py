"""The chunked loss against the plain one."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_yoda.lora.product import through_base
from mlx_yoda.train.loss import summed_cross_entropy

M, D, V = 37, 32, 50


def heads() -> dict[str, nn.Module]:
    linear = nn.Linear(D, V, bias=False)
    embedding = nn.Embedding(V, D)
    return {
        "linear": linear,
        "quantised": nn.QuantizedLinear.from_linear(linear, 32, 4),
        "tied": embedding,
        "tied, quantised": nn.QuantizedEmbedding.from_embedding(embedding, 32, 8),
    }


@pytest.mark.parametrize("chunk", [1, 8, 36, 37, 1000])
@pytest.mark.parametrize("name", list(heads()))
def test_equals_the_plain_loss(name, chunk):
    mx.random.seed(0)
    head = heads()[name]
    project = head.as_linear if "tied" in name else head
    hidden = 3 * mx.random.normal((M, D))
    targets = mx.random.randint(0, V, (M,))
    weights = (mx.arange(M) % 3 > 0).astype(mx.float32)  # a third of the rows is masked

    def chunked(hidden):
        return 0.5 * summed_cross_entropy(
            hidden, targets, weights, project, lambda dy: through_base(head, dy), chunk
        )

    def plain(hidden):
        return 0.5 * (nn.losses.cross_entropy(project(hidden), targets) * weights).sum()

    value, gradient = mx.value_and_grad(chunked)(hidden)
    expected, expected_gradient = mx.value_and_grad(plain)(hidden)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert mx.allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    assert mx.abs(gradient * (1 - weights)[:, None]).max().item() == 0


def test_logits_of_several_chunks_are_not_alive_at_once():
    m, d, v, chunk = 2048, 16, 8192, 128
    head = nn.Linear(d, v, bias=False)
    hidden, targets = mx.random.normal((m, d)), mx.zeros((m,), mx.int32)
    mx.eval(head.parameters(), hidden)
    loss = mx.grad(
        lambda h: summed_cross_entropy(
            h, targets, mx.ones((m,)), head, lambda dy: through_base(head, dy), chunk
        )
    )
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(loss(hidden))
    assert mx.get_peak_memory() - before < 12 * chunk * v * 4 < m * v * 4
