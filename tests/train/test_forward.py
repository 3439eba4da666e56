"""Loss and gradients of the ragged forward pass against mlx-lm's own, row by row."""

import itertools

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.packing import Packed
from mlx_yoda.data.shapes import Shape, choose_shapes
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of, dropout_keys, install, lent
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.recompute import Keep


def gradients(layers, forward, batch, key=None, compiled=False):
    """Loss sum and gradients of the adapter."""

    def run(adapter, batch):
        def loss(adapter):
            keys = {} if key is None else dropout_keys(layers, key, batch.places)
            with lent(layers, adapter, keys):
                return forward(batch)

        return mx.value_and_grad(loss)(adapter)

    return (mx.compile(run) if compiled else run)(adapter_of(layers), batch)


def one_by_one(model, layers, rows):
    """The slow reference: mlx-lm's forward pass and autodiff, one unpadded row at a time."""

    def loss(adapter):
        install(layers, adapter)
        total = mx.zeros(())
        for row in rows:
            logits = model(mx.array(row.tokens[None]))[0, :-1].astype(mx.float32)
            targets = mx.array(row.tokens[1:])
            weights = mx.array(row.supervised[1:].astype(np.float32))
            total += (nn.losses.cross_entropy(logits, targets) * weights).sum()
        return total

    own = adapter_of(layers)
    result = mx.value_and_grad(loss)(own)
    install(layers, own)
    return result


def batch_of(rows, shapes=None):
    return Arrays.of(collate(rows, shapes or choose_shapes([needed(rows)])))


@pytest.mark.parametrize("keep", list(Keep))
@pytest.mark.parametrize(
    "model",
    [
        {},
        {"tied": True},
        {"bits": 4},
        {"bits": 8, "tied": True},
        {"bits": 4, "lora": LoraConfig(lora_dropout=0.0, use_dora=True)},
    ],
    ids=["plain", "tied", "4 bits", "8 bits, tied", "DoRA, 4 bits"],
)
def test_equals_mlx_lm_row_by_row(make_model, make_rows, distance, model, keep):
    model, layers = make_model(**model)
    rows = make_rows(7)
    loss, grads = gradients(layers, forward_of(model, keep), batch_of(rows))
    expected_loss, expected = one_by_one(model, layers, rows)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert distance(grads, expected) < 1e-5


class Other(nn.Module):
    """A model that is not a Phi-3 by type."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __call__(self, tokens):
        return self.inner(tokens)


def test_the_padded_way_of_other_architectures_is_the_same(make_model, make_rows, distance):
    model, layers = make_model()
    rows = make_rows(7)
    loss, grads = gradients(layers, forward_of(Other(model)), batch_of(rows))
    expected_loss, expected = one_by_one(model, layers, rows)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert distance(grads, expected) < 1e-5


def test_the_padded_way_drops_the_same(make_model, make_rows, distance):
    """A token's mask is its own, whether it lies end to end with others or in a padded row."""
    model, layers = make_model(lora=LoraConfig(lora_dropout=0.3))
    batch, key = batch_of(make_rows(7)), mx.random.key(3)
    padded, grads = gradients(layers, forward_of(Other(model)), batch, key)
    ragged, expected = gradients(layers, forward_of(model), batch, key)
    assert padded.item() == pytest.approx(ragged.item(), rel=1e-5)
    assert distance(grads, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "lora",
    [{"lora_dropout": 0.05}, {"lora_dropout": 0.5}, {"lora_dropout": 0.3, "use_dora": True}],
    ids=str,
)
def test_dropout_agrees_with_recomputation(make_model, make_rows, distance, lora):
    model, layers = make_model(lora=LoraConfig(**lora))
    batch = batch_of(make_rows(7))
    key = mx.random.key(3)
    everything = forward_of(model, Keep.EVERYTHING)
    expected_loss, expected = gradients(layers, everything, batch, key)
    _, undropped = gradients(layers, everything, batch)
    assert distance(expected, undropped) > 0.01  # dropout does something
    for keep, compiled in itertools.product(Keep, (False, True)):
        loss, grads = gradients(layers, forward_of(model, keep), batch, key, compiled)
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
        assert distance(grads, expected) < 1e-5, (keep, compiled)


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_gradients_are_autodiffs(make_model, make_rows, distance, dora):
    """With the same masks, through mlx-lm's forward pass and plain automatic differentiation."""
    model, layers = make_model(lora=LoraConfig(lora_dropout=0.3, use_dora=dora), layers=1)
    rows = [row for row in make_rows(5, 8, 8)]  # equal lengths: one unpadded (B, T) batch
    batch, key = batch_of(rows), mx.random.key(3)
    _, grads = gradients(layers, forward_of(model, Keep.INPUT), batch, key)

    def loss(adapter):
        with lent(layers, adapter, dropout_keys(layers, key, batch.places)):
            tokens = batch.tokens[batch.layout.rows]
            logits = model(tokens).reshape(-1, model.args.vocab_size)
            losses = nn.losses.cross_entropy(logits[batch.loss_at], batch.targets)
            return (losses * batch.weights).sum()

    assert distance(grads, mx.grad(loss)(adapter_of(layers))) < 1e-5


def test_examples_that_share_a_row_do_not_see_each_other(make_model, make_rows, distance):
    model, layers = make_model()
    one, two, three = make_rows(3)
    lengths = (len(one.tokens), len(two.tokens))
    shared = Packed(
        np.concatenate([one.tokens, two.tokens]),
        np.concatenate([one.supervised, two.supervised]),
        lengths,
    )
    loss, grads = gradients(layers, forward_of(model), batch_of([shared, three]))
    expected_loss, expected = one_by_one(model, layers, [one, two, three])
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert distance(grads, expected) < 1e-5


def test_padding_changes_nothing(make_model, make_rows, distance):
    model, layers = make_model()
    rows = make_rows(3)
    tight = gradients(layers, forward_of(model), batch_of(rows))
    wide = batch_of(rows, [Shape(tokens=96, rows=5, length=32, targets=64)])
    padded = gradients(layers, forward_of(model), wide)
    assert padded[0].item() == pytest.approx(tight[0].item(), rel=1e-6)
    assert distance(padded[1], tight[1]) < 1e-5


def test_a_head_that_is_to_be_adapted_is_refused(make_model):
    model, _ = make_model(lora=LoraConfig(target_modules=["o_proj", "lm_head"]))
    with pytest.raises(UserError, match="lm_head cannot be trained"):
        forward_of(model)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=str)
def test_half_precision_bases_have_finite_float32_gradients(make_model, make_rows, distance, dtype):
    model, layers = make_model(dtype=dtype)
    rows = make_rows(7)
    loss, grads = gradients(layers, forward_of(model), batch_of(rows))
    exact_model, exact_layers = make_model()
    _, exact = gradients(exact_layers, forward_of(exact_model), batch_of(rows))
    assert loss.dtype == mx.float32
    assert all(g.dtype == mx.float32 for pair in grads.values() for g in pair.values())
    assert distance(grads, exact) < 0.1
