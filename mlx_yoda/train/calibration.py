"""How fast this machine is, measured in a few seconds on products of a model's own shapes."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.lora.product import frozen_product, through_base
from mlx_yoda.model.phi3 import swiglu
from mlx_yoda.model.sizes import Sizes
from mlx_yoda.train.cost import Speed

_FEWEST = 8  # tokens


def calibrate(
    sizes: Sizes,
    tokens: int,
    *,
    dtype: mx.Dtype,
    quantization: Mapping[str, Any] | None = None,
    seconds: float = 5.0,
) -> Speed:
    """Time one layer's products, forward and backward, and a SwiGLU.

    Args:
        sizes: of the model; the weights are random.
        tokens: of a micro-batch. Fewer are taken where the machine is so slow that the time would
            not do for three passes over them.
        dtype: of the activations.
        quantization: config.json's, if the base is quantised.
        seconds: to take, about; four fifths of them for the products.

    Returns:
        Speeds over whole passes, medians, in operations and in numbers a second; a multiplication
        with its addition is two operations.
    """
    d, q, f = sizes.hidden, sizes.qkv, sizes.intermediate
    shapes = ((d, q), (d, d), (d, 2 * f), (f, d))  # in, out
    layers = [_linear(*shape, dtype, quantization) for shape in shapes]
    mx.eval([layer.parameters() for layer in layers])
    operations = 4 * (d * q + d * d + 3 * d * f)  # a token's, forward and backward

    def products(count: int) -> Callable[[], None]:
        inputs = {
            width: mx.random.normal((count, width)).astype(dtype) for width in (d, q, f, 2 * f)
        }
        mx.eval(inputs)

        def run() -> None:
            for layer, (wide, out) in zip(layers, shapes, strict=True):
                mx.eval(frozen_product(layer, inputs[wide], transpose=True))
                mx.eval(through_base(layer, inputs[out]))

        return run

    def elements(count: int) -> Callable[[], None]:
        gate_up = mx.random.normal((count, 2 * f)).astype(dtype)
        mx.eval(gate_up)
        return lambda: mx.eval(swiglu(gate_up))

    return Speed(
        products=operations * _a_second(products, tokens, 0.8 * seconds),
        elements=3 * f * _a_second(elements, tokens, 0.2 * seconds),
    )


def _a_second(passes: Callable[[int], Callable[[], None]], tokens: int, seconds: float) -> float:
    """Tokens that a pass gets through in a second, over as many of them as there is time for."""
    end = time.perf_counter() + seconds
    count = min(tokens, _FEWEST)
    run = passes(count)
    run()  # the first one compiles kernels, and touches the memory
    while count < tokens and 8 * _seconds(run) < end - time.perf_counter():  # 4 of twice as many
        count = min(tokens, 2 * count)
        run = passes(count)
    times = [_seconds(run)]
    while time.perf_counter() + times[-1] < end:
        times.append(_seconds(run))
    return count / statistics.median(times)


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _linear(
    wide: int, out: int, dtype: mx.Dtype, quantization: Mapping[str, Any] | None
) -> nn.Module:
    linear = nn.Linear(wide, out, bias=False)
    linear.weight = linear.weight.astype(dtype)
    if not quantization or wide % quantization.get("group_size", 64):  # the latter stays whole
        return linear
    keys = ("group_size", "bits", "mode")
    return linear.to_quantized(**{key: quantization[key] for key in keys if key in quantization})
