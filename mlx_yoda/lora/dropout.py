"""Dropout whose every draw comes from an explicit key, so that it can be drawn again.

Each token has a key of its own, made from the layer's key and the token's number within its
optimizer step. So a mask depends on neither how many rows are computed at once nor where in a
batch a token lies: what fits into memory does not change what is learned.
"""

import mlx.core as mx

_LEVELS = 1 << 16  # 16 random bits an entry: half of what a float draw costs, p exact to 2^-17


def token_keys(key: mx.array, tokens: mx.array) -> mx.array:
    """A PRNG key for each token.

    Threefry's streams (Salmon et al., SC 2011) are independent for different keys, however close.

    Args:
        key: the layer's in this step, `(2,)` uint32.
        tokens: numbers of the tokens, `(...)` integers.

    Returns:
        `(..., 2)` uint32.
    """
    low = key[1] + tokens.astype(mx.uint32)
    return mx.stack([mx.broadcast_to(key[0], low.shape), low], axis=-1)


def keep_mask(keys: mx.array, shape: tuple[int, ...], p: float, dtype: mx.Dtype) -> mx.array:
    """Draw the multiplier of inverted dropout (Srivastava et al., JMLR 15, 2014).

    Args:
        keys: PRNG keys, `(..., 2)` uint32, one for each token of `shape`. The same key gives the
            same mask, so a forward pass that is computed again in the backward pass agrees with
            the first one.
        shape: shape of the activations, `(..., D)`.
        p: probability of dropping an entry, `0 < p < 1`, honoured to 2^-17.
        dtype: dtype of the mask.

    Returns:
        Array of `shape`: 0 where an entry is dropped, `1 / (1 - p)` where it is kept.
    """
    width = shape[-1]
    threshold = round(p * _LEVELS)
    # MLX exposes its raw generator only as key splitting: (n, 2) uint32, four draws a row.
    bits = mx.vmap(lambda key: mx.random.split(key, -(-width // 4)))(keys.reshape(-1, 2))
    draws = bits.view(mx.uint16).reshape(keys.size // 2, -1)[:, :width]
    kept = (draws >= threshold).reshape(shape)
    return kept.astype(dtype) * mx.array(_LEVELS / (_LEVELS - threshold), dtype)
