"""The frozen layers run once: the same gradients."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_yoda.config.schema import LoraConfig, Quantization, TrainConfig
from mlx_yoda.data.packing import Packed
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.model.load import load
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.prefix import first_adapted_layer, run_prefix
from mlx_yoda.train.recompute import Keep
from mlx_yoda.train.step import Sums, make_steps

CONFIG = TrainConfig(per_device_train_batch_size=4, max_steps=3)


def sums_of(model, layers, rows, keep, prefix=None):
    """The gradients of three steps' batches, added up."""
    forward = forward_of(model, keep, prefix.first if prefix else 0)
    arrays = prefix.arrays if prefix else Arrays.of
    steps = make_steps(CONFIG, layers, forward, compiled=False, arrays=arrays)
    adapter = adapter_of(layers)
    sums = Sums.zero(adapter)
    for step, batches in make_plan(rows, CONFIG).steps():
        for batch in batches:
            sums = steps.accumulate(sums, adapter, steps.arrays(batch), mx.random.key(step))
    return sums


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("keep", [Keep.EVERYTHING, Keep.INPUT])
def test_gradients_are_the_same(make_model, make_rows, distance, keep, window):
    lora = LoraConfig(layers_to_transform=[2, 3], lora_dropout=0.1)
    model, layers = make_model(layers=4, lora=lora, window=window)
    one, two, *rows = make_rows(12)
    rows.append(
        Packed(
            np.concatenate([one.tokens, two.tokens]),
            np.concatenate([one.supervised, two.supervised]),
            (len(one.tokens), len(two.tokens)),
        )
    )
    first = first_adapted_layer(model, layers)
    assert first == 2
    prefix = run_prefix(model, first, rows)
    assert [len(h) for h in prefix.hidden] == [len(row.tokens) for row in rows]
    cached = sums_of(model, layers, rows, keep, prefix)
    whole = sums_of(model, layers, rows, keep)
    assert cached.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert distance(cached.gradients, whole.gradients) < 1e-5


def test_there_is_no_prefix_where_the_first_layer_trains(make_model):
    assert first_adapted_layer(*make_model()) == 0
    head = LoraConfig(target_modules=["lm_head", "o_proj"], layers_to_transform=None)
    assert first_adapted_layer(*make_model(lora=head)) == 0


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_activations_are_of_the_base_s_dtype_however_it_is_packed(make_rows, mode, dtype):
    base = load("demo", dtype=dtype, quantization=Quantization(mode=mode))
    assert run_prefix(base.model, 1, make_rows(1)).hidden[0].dtype == getattr(mx, dtype)
