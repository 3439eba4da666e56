"""Every family through the training step: packing, recomputation and dropout change nothing."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.data.batches import apart, collate, needed
from mlx_yoda.data.chat import Example
from mlx_yoda.data.packing import pack
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of, dropout_keys, lent
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.load import load_lazily
from mlx_yoda.train.evaluate import held_out_loss
from mlx_yoda.train.forward import arrays_for, forward_of
from mlx_yoda.train.recompute import Keep
from tests.model.families import FAMILIES

TARGETS = {"Phi 3": ["qkv_proj", "gate_up_proj", "down_proj"]}
OTHERS = [name for name in FAMILIES if name != "Phi 3"]


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    made = []
    for length in (30, 5, 21, 9, 12, 17, 3):
        supervised = rng.random(length) < 0.6
        supervised[0], supervised[-1] = False, True
        tokens = rng.integers(3, 700, length).astype(np.int32)
        made.append(Example(tokens, supervised, True))
    return made


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, family_folder):
    return with_adapter(request.param, family_folder)


@pytest.fixture(scope="module", params=OTHERS)
def padded_family(request, family_folder):
    return with_adapter(request.param, family_folder)


def with_adapter(name, family_folder):
    model, _ = load_lazily(family_folder(name), None, False)
    model.freeze()
    targets = TARGETS.get(name, ["q_proj", "v_proj", "up_proj", "down_proj"])
    lora = LoraConfig(r=4, lora_dropout=0.4, target_modules=targets)
    layers = inject(model, lora, mx.random.key(0))
    for index, layer in enumerate(layers.values()):
        layer.lora_B = 0.3 * mx.random.normal(layer.lora_B.shape, key=mx.random.key(index))
    return model, layers


def step(model, layers, rows, keep=Keep.EVERYTHING, dropout=None, compiled=False):
    """Loss sum and gradients of all rows as one batch."""
    batch = arrays_for(model)(collate(rows, choose_shapes([needed(rows)])))
    forward = forward_of(model, keep)

    def run(adapter, batch):
        def loss(adapter):
            keys = {} if dropout is None else dropout_keys(layers, dropout, batch.places)
            with lent(layers, adapter, keys):
                return forward(batch)

        return mx.value_and_grad(loss)(adapter)

    return (mx.compile(run) if compiled else run)(adapter_of(layers), batch)


def distance(one, other):
    others = dict(tree_flatten(other))
    return max(
        (mx.linalg.norm(array - others[name]) / mx.linalg.norm(others[name])).item()
        for name, array in tree_flatten(one)
    )


def test_examples_that_share_a_row_do_not_see_each_other(family, examples):
    model, layers = family
    alone, gradients = step(model, layers, pack(examples, "none", 40))
    rows = pack(examples, "best_fit", 40)
    assert len(rows) < len(examples)
    packed, of_packed = step(model, layers, rows)
    assert packed.item() == pytest.approx(alone.item(), rel=1e-5)
    assert distance(of_packed, gradients) < 1e-4


def test_chained_rows_are_one_text(family, examples):
    """`concat` is TRL's: what lies in a row is attended to, whatever example it comes from."""
    model, layers = family
    rows = pack(examples, "concat", 24)
    total, _ = step(model, layers, rows)
    tokens = np.concatenate([example.tokens for example in examples])
    targets = np.concatenate([example.supervised for example in examples])
    targets[np.cumsum([0, *(len(e.tokens) for e in examples[:-1])])] = True
    wanted = 0.0
    for start in range(0, len(tokens) - 23, 24):
        logits = np.array(model(mx.array(tokens[None, start : start + 24])))[0]
        chosen = logits[np.arange(23), tokens[start + 1 : start + 24]]
        losses = np.log(np.exp(logits[:-1]).sum(axis=-1)) - chosen
        wanted += losses[targets[start + 1 : start + 24]].sum()
    assert total.item() == pytest.approx(wanted, rel=1e-4)


def test_evaluation_keeps_examples_apart_too(padded_family, examples):
    model, _ = padded_family
    alone, packed = (pack(examples, packing, 40) for packing in ("none", "best_fit"))
    expected, count = held_out_loss(model, alone, 3)
    loss, tokens = held_out_loss(model, packed, 3)
    assert tokens == count
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_batch_that_was_not_taken_apart_is_an_error(padded_family, examples):
    from mlx_yoda.train.forward import Arrays

    model, _ = padded_family
    rows = pack(examples, "best_fit", 40)
    with pytest.raises(ValueError, match="arrays_for"):
        forward_of(model)(Arrays.of(collate(rows, choose_shapes([needed(rows)]))))


def test_recomputed_layers_have_the_same_gradients(padded_family, examples):
    model, layers = padded_family
    rows, key = pack(examples, "best_fit", 40), mx.random.key(7)
    loss, gradients = step(model, layers, rows, dropout=key)
    again, of_again = step(model, layers, rows, Keep.INPUT, key)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    assert distance(of_again, gradients) < 1e-5
    undropped, _ = step(model, layers, rows)
    assert abs(undropped.item() - loss.item()) > 0.01, "dropout has to matter"


@pytest.mark.slow
def test_recomputed_layers_can_be_compiled(family_folder, examples):
    model, layers = with_adapter("Gemma 2", family_folder)
    rows, key = pack(examples, "best_fit", 40), mx.random.key(7)
    loss, gradients = step(model, layers, rows, dropout=key)
    again, of_again = step(model, layers, rows, Keep.INPUT, key, compiled=True)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    assert distance(of_again, gradients) < 1e-5


def test_recomputed_layers_are_put_back(padded_family, examples):
    model, layers = padded_family
    own = list(model.layers)
    step(model, layers, pack(examples, "none", 40), Keep.INPUT)
    assert all(layer is before for layer, before in zip(model.layers, own, strict=True))


@pytest.mark.slow
def test_recomputing_takes_less_memory(family_folder, examples):
    model, layers = with_adapter("Gemma 3", family_folder)
    rows = pack(examples * 20, "none", 40)
    peaks = []
    for keep in (Keep.EVERYTHING, Keep.INPUT):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(step(model, layers, rows, keep))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.7 * peaks[0]


def test_layers_that_cannot_be_recomputed_are_refused():
    class Layerless:
        """A model without a list of layers."""

        def named_modules(self):
            return []

    with pytest.raises(UserError, match=r"train\.gradient_checkpointing.*set it to false"):
        forward_of(Layerless(), Keep.INPUT)


def test_taking_a_batch_apart_keeps_every_token_in_its_place(examples):
    rows = pack(examples, "best_fit", 40)
    whole = collate(rows, choose_shapes([needed(rows)]), first=11)
    batch = apart(whole)
    assert batch.segments is None
    assert batch.first == 11
    assert (batch.tokens[:-1] == whole.tokens).all()
    found = []
    for number, row in enumerate(batch.rows):
        real = row[row < whole.input_tokens]
        assert (row[len(real) :] == len(whole.tokens)).all(), "padding is behind, and is padding"
        assert (batch.flat[real] == number * batch.rows.shape[1] + np.arange(len(real))).all()
        found.append(batch.tokens[real].tolist())
    wanted = sorted(example.tokens.tolist() for example in examples)
    assert sorted(filter(None, found)) == wanted
    alone = pack(examples, "none", 40)
    single = collate(alone, choose_shapes([needed(alone)]))
    assert apart(single) is single
