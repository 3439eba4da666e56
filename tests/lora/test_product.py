"""The hand-written backward pass against automatic differentiation and finite differences."""

import itertools

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_yoda.config.quantization import packing, short
from mlx_yoda.config.schema import Quantization
from mlx_yoda.lora.dropout import keep_mask, token_keys
from mlx_yoda.lora.layer import LoRALinear, linear_shape, plain_weight
from mlx_yoda.lora.product import lora_product, plain_product

ROWS, N_IN, N_OUT, R = 10, 64, 48, 4
KEYS = token_keys(mx.random.key(7), mx.arange(ROWS))


def make_layer(base: nn.Module, dropout: float) -> LoRALinear:
    layer = LoRALinear(
        base, r=R, lora_alpha=8, dropout=dropout, use_rslora=False, key=mx.random.key(1)
    )
    layer.lora_B = mx.random.normal((N_OUT, R), key=mx.random.key(2))
    layer._dropout_key = KEYS if dropout else None
    return layer


def make_base(bits: int | None, dtype: mx.Dtype) -> nn.Module:
    linear = nn.Linear(N_IN, N_OUT, bias=False)
    linear.weight = mx.random.normal((N_OUT, N_IN), key=mx.random.key(3)).astype(dtype)
    return linear if bits is None else nn.QuantizedLinear.from_linear(linear, 32, bits)


def obvious(layer: LoRALinear, x: mx.array, a: mx.array, b: mx.array) -> mx.array:
    """The layer as its formula has it, for automatic differentiation."""
    z = x
    if layer.dropout:
        z = x * keep_mask(KEYS, x.shape, layer.dropout, x.dtype)
    branch = (z @ a.astype(x.dtype).T) @ b.astype(x.dtype).T
    return layer.base(x) + layer.scale * branch


def through_layer(layer: LoRALinear, x: mx.array, a: mx.array, b: mx.array, pre=None) -> mx.array:
    layer.lora_A, layer.lora_B = a, b
    return lora_product(layer, x, pre)


def relative(one: mx.array, other: mx.array) -> float:
    one, other = one.astype(mx.float32), other.astype(mx.float32)
    return (mx.linalg.norm(one - other) / mx.linalg.norm(other)).item()


def gradients(function, *inputs: mx.array) -> list[mx.array]:
    cotangent = mx.random.normal((ROWS, N_OUT), key=mx.random.key(4)).astype(inputs[0].dtype)
    return mx.vjp(function, list(inputs), [cotangent])[1]


@pytest.mark.parametrize(
    ("bits", "dtype", "dropout", "compiled"),
    [
        case
        for case in itertools.product(
            (None, 4, 8), (mx.float32, mx.bfloat16, mx.float16), (0.0, 0.05, 0.5), (False, True)
        )
        if not case[3] or case[1] == mx.float32
    ],
    ids=str,
)
def test_gradients_equal_autodiff(bits, dtype, dropout, compiled):
    layer = make_layer(make_base(bits, dtype), dropout)
    a, b = layer.lora_A, layer.lora_B
    x = mx.random.normal((ROWS, N_IN), key=mx.random.key(5)).astype(dtype)

    ours = gradients
    if compiled:
        ours = lambda function, *inputs: mx.compile(  # noqa: E731
            lambda *inputs: gradients(function, *inputs)
        )(*inputs)
    got = ours(lambda x, a, b: through_layer(layer, x, a, b), x, a, b)
    want = gradients(lambda x, a, b: obvious(layer, x, a, b), x, a, b)

    bound = 1e-5 if dtype == mx.float32 else 2e-2
    assert [g.dtype for g in got] == [dtype, mx.float32, mx.float32]
    assert max(relative(g, w) for g, w in zip(got, want, strict=True)) < bound
    layer.lora_A, layer.lora_B = a, b
    assert relative(lora_product(layer, x), obvious(layer, x, a, b)) < bound


def test_gradients_equal_finite_differences():
    layer = make_layer(make_base(None, mx.float32), 0.25)
    a, b = layer.lora_A, layer.lora_B
    x = mx.random.normal((ROWS, N_IN), key=mx.random.key(5))

    def value(x, a, b):
        return through_layer(layer, x, a, b).sum()

    slopes = mx.grad(value, argnums=(0, 1, 2))(x, a, b)
    for i, inputs in enumerate((x, a, b)):
        step = mx.random.normal(inputs.shape, key=mx.random.key(8 + i))
        ends = [[x, a, b], [x, a, b]]
        ends[0][i], ends[1][i] = inputs + 0.5 * step, inputs - 0.5 * step
        # The product is linear in each of its inputs: the difference is exact for any step.
        difference = value(*ends[0]) - value(*ends[1])
        assert difference.item() == pytest.approx((slopes[i] * step).sum().item(), rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_input_made_again_has_the_same_gradients(dropout):
    norm = nn.RMSNorm(N_IN)
    norm.freeze()
    layer = make_layer(make_base(None, mx.float32), dropout)
    a, b = layer.lora_A, layer.lora_B
    x = mx.random.normal((ROWS, N_IN), key=mx.random.key(5))
    got = gradients(lambda x, a, b: through_layer(layer, x, a, b, norm), x, a, b)
    want = gradients(lambda x, a, b: obvious(layer, norm(x), a, b), x, a, b)
    assert max(relative(g, w) for g, w in zip(got, want, strict=True)) < 1e-5


MODES = [
    *[Quantization(bits, 32) for bits in (2, 3, 4, 5, 6, 8)],
    *[Quantization(mode=mode) for mode in ("mxfp4", "mxfp8", "nvfp4")],
]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize("mode", MODES, ids=short)
def test_every_packing_has_the_gradients_of_its_unpacked_weight(mode, dtype):
    packed = make_base(None, dtype).to_quantized(**packing(mode)._asdict())
    whole = nn.Linear(N_IN, N_OUT, bias=False)
    whole.weight = plain_weight(packed)
    x = mx.random.normal((ROWS, N_IN), key=mx.random.key(5)).astype(dtype)
    packed_layer, plain_layer = make_layer(packed, 0.3), make_layer(whole, 0.3)
    a, b = packed_layer.lora_A, packed_layer.lora_B
    got = gradients(lambda x, a, b: through_layer(packed_layer, x, a, b), x, a, b)
    exact = x.astype(mx.float32)
    want = gradients(lambda x, a, b: obvious(plain_layer, x, a, b), exact, a, b)
    bound = 1e-5 if dtype == mx.float32 else 2e-2
    assert [g.dtype for g in got] == [dtype, mx.float32, mx.float32]
    assert max(relative(g, w) for g, w in zip(got, want, strict=True)) < bound
    packed_layer.lora_A, packed_layer.lora_B = a, b
    assert relative(lora_product(packed_layer, x), obvious(plain_layer, exact, a, b)) < bound


@pytest.mark.parametrize("bits", [None, 4])
def test_a_frozen_layer_passes_the_gradient_on(bits):
    base, norm = make_base(bits, mx.float32), nn.RMSNorm(N_IN)
    x = mx.random.normal((ROWS, N_IN), key=mx.random.key(5))
    (got,) = gradients(lambda x: plain_product(base, x, norm), x)
    (want,) = gradients(lambda x: base(norm(x)), x)
    assert relative(got, want) < 1e-5


@pytest.mark.parametrize("bits", [None, 3, 4, 8])
def test_a_layers_shape_is_its_matrixs_even_when_that_is_packed(bits):
    assert linear_shape(make_base(bits, mx.float32)) == (N_OUT, N_IN)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_share(p):
    def mask_of(seed, first=0):
        keys = token_keys(mx.random.key(seed), mx.arange(first, first + 1000))
        return keep_mask(keys, (1000, 1001), p, mx.float32)

    mask = mask_of(0)
    assert (mask == 0).mean().item() == pytest.approx(p, abs=2e-3)
    assert mask.mean().item() == pytest.approx(1, abs=1e-2)
    assert mx.array_equal(mask, mask_of(0))
    assert mx.array_equal(mask[10:], mask_of(0, first=10)[:-10])  # a token keeps its mask
    for other in (mask_of(1), mask_of(0, first=1), mask[::-1], mask[:, ::-1]):
        assert (mask == other).mean().item() == pytest.approx(p * p + (1 - p) ** 2, abs=3e-3)
