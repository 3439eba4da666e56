"""PiSSA: what it starts from, that it changes nothing at first, and what it saves."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_yoda.config.lora_names import scale_of
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.dropout import token_keys
from mlx_yoda.lora.inject import inject
from mlx_yoda.lora.layer import plain_weight
from mlx_yoda.lora.pissa import PissaLinear, as_saved

N_IN, N_OUT, R = 64, 48, 4


def make_base(bits=None, dtype=mx.float32):
    """A weight whose singular values fall, as those of trained ones do."""
    draw = np.random.default_rng(3)
    left = np.linalg.qr(draw.standard_normal((N_OUT, N_OUT)))[0]
    right = np.linalg.qr(draw.standard_normal((N_IN, N_OUT)))[0]
    linear = nn.Linear(N_IN, N_OUT, bias=False)
    values = 5 * 0.8 ** np.arange(N_OUT)
    linear.weight = mx.array((left * values @ right.T).astype(np.float32)).astype(dtype)
    return linear if bits is None else nn.QuantizedLinear.from_linear(linear, 32, bits)


def make_layer(base, method="pissa", dropout=0.0):
    options = {"lora_alpha": 8, "dropout": dropout, "use_rslora": False, "key": mx.random.key(1)}
    return PissaLinear(base, r=R, method=method, **options)


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("method", ["pissa", "pissa_niter_4", "pissa_niter_16"])
def test_it_starts_from_the_best_approximation_of_its_rank(bits, method):
    base = make_base(bits)
    layer = make_layer(base, method)
    part = layer.scale * (layer.lora_B[:, :R] @ layer.lora_A[:R])
    weight = np.array(plain_weight(base))
    values = np.linalg.svd(weight, compute_uv=False)
    left = np.linalg.norm(weight - np.array(part))  # Eckart and Young
    assert left == pytest.approx(np.sqrt((values[R:] ** 2).sum()), rel=1e-3)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_new_layer_changes_not_a_bit(dtype, dropout):
    layer = make_layer(make_base(dtype=dtype), dropout=dropout)
    layer._dropout_key = token_keys(mx.random.key(0), mx.arange(10))
    x = mx.random.normal((10, N_IN)).astype(dtype)
    assert mx.array_equal(layer(x), layer.base(x))


def test_only_a_and_b_get_gradients_and_both_do():
    layer = make_layer(make_base())
    x = mx.random.normal((10, N_IN), key=mx.random.key(5))

    def loss(a, b):
        layer.lora_A, layer.lora_B = a, b
        return mx.square(layer(x)).sum()

    def plain(a, b):
        a0, b0 = layer.lora_A[R:], -layer.lora_B[:, R:]
        return mx.square(layer.base(x) + layer.scale * (x @ a.T @ b.T - x @ a0.T @ b0.T)).sum()

    a, b = layer.lora_A, layer.lora_B
    da, db = mx.grad(loss, argnums=(0, 1))(a, b)
    layer.lora_A, layer.lora_B = a, b
    want_a, want_b = mx.grad(plain, argnums=(0, 1))(a[:R], b[:, :R])
    assert mx.abs(da[R:]).max() == mx.abs(db[:, R:]).max() == 0
    assert mx.allclose(da[:R], want_a, rtol=1e-4, atol=1e-2)
    assert mx.allclose(db[:, :R], want_b, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("rslora", [False, True])
def test_the_saved_configuration_has_twice_the_rank_and_the_same_scales(rslora):
    lora = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        init_lora_weights="pissa",
        rank_pattern={"qkv_proj": 3},
        alpha_pattern={"o_proj": 5},
    )
    saved = as_saved(lora)
    assert saved.init_lora_weights is True
    assert (saved.r, saved.rank_pattern) == (8, {"qkv_proj": 6})
    for name in ("qkv_proj", "o_proj", "down_proj"):
        assert scale_of(name, saved) == pytest.approx(scale_of(name, lora), rel=1e-12)
    assert as_saved(LoraConfig()) == LoraConfig()


def test_dora_and_pissa_together_are_refused(our_base):
    config = LoraConfig(use_dora=True, init_lora_weights="pissa")
    with pytest.raises(UserError, match="cannot be combined"):
        inject(our_base.model, config, mx.random.key(0))
