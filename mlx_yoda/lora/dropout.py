"""Dropout whose every draw comes from an explicit key, so that it can be drawn again."""

import math

import mlx.core as mx

_LEVELS = 1 << 16  # 16 random bits an entry: half of what a float draw costs, p exact to 2^-17


def keep_mask(key: mx.array, shape: tuple[int, ...], p: float, dtype: mx.Dtype) -> mx.array:
    """Draw the multiplier of inverted dropout (Srivastava et al., JMLR 15, 2014).

    Args:
        key: PRNG key, `(2,)` uint32. The same key gives the same mask, so a forward pass that
            is computed again in the backward pass agrees with the first one.
        shape: shape of the activations.
        p: probability of dropping an entry, `0 < p < 1`, honoured to 2^-17.
        dtype: dtype of the mask.

    Returns:
        Array of `shape`: 0 where an entry is dropped, `1 / (1 - p)` where it is kept.
    """
    size = math.prod(shape)
    threshold = round(p * _LEVELS)
    # MLX exposes its raw generator only as key splitting: (n, 2) uint32, four draws a row.
    draws = mx.random.split(key, -(-size // 4)).view(mx.uint16).reshape(-1)[:size]
    kept = (draws >= threshold).reshape(shape)
    return kept.astype(dtype) * mx.array(_LEVELS / (_LEVELS - threshold), dtype)
