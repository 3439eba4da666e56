"""Tokens laid end to end, and the rows that attention needs.

A batch of sequences of different lengths is one array `(N, D)` for everything that looks at one
token at a time (embedding, norms, linear layers, head): nothing is padded there. Only attention
sees rows `(B, T)`, through a gather, so that the plain causal mask, which is the one with a fused
backward pass on Metal, is exact: a row's padding lies after its tokens and is seen by none.
"""

from typing import NamedTuple, cast

import mlx.core as mx


class Layout(NamedTuple):
    """Where each token lies in both views.

    Both gathers are permutations but for a spare slot: if one side is padded the other is too
    (`mlx_yoda.data.batches` sees to it), padding points to padding, and nothing flows from it.

    Attributes:
        rows: `(B, T)` int32, for each place of a row the index of its token in `(N,)`.
        flat: `(N,)` int32, for each token its place in the rows, `b * T + t`.
        segments: `(B, T)` int32, or None. Where given, a token sees only its own segment.
        window: how many tokens a token sees, itself included; None for all before it.
    """

    rows: mx.array
    flat: mx.array
    segments: mx.array | None
    window: int | None = None

    def mask(self) -> mx.array | str:
        """The attention mask: "causal", or of what a token sees, `(B or 1, 1, T, T)` bool."""
        length = self.rows.shape[1]
        window = length if self.window is None else self.window
        if self.segments is None and window >= length:
            return "causal"
        t = mx.arange(length)
        seen = ((t[:, None] >= t) & (t[:, None] - t < window))[None, None]
        if self.segments is not None:
            seen = seen & (self.segments[:, None, :, None] == self.segments[:, None, None, :])
        return seen


def unfold(x: mx.array, layout: Layout) -> mx.array:
    """From tokens `(N, D)` to rows `(B, T, D)`; its gradient is the other gather."""
    return _gather(x, layout.rows, layout.flat)


def fold(x: mx.array, layout: Layout) -> mx.array:
    """From rows `(B, T, D)` to tokens `(N, D)`; its gradient is the other gather."""
    return _gather(x.reshape(-1, x.shape[-1]), layout.flat, layout.rows)


def _gather(x: mx.array, index: mx.array, inverse: mx.array) -> mx.array:
    # The gradient of a gather is a scatter-add, slow everywhere; of a permutation, a gather.
    take = mx.custom_function(lambda x: mx.take(x, index, axis=0))

    @take.vjp
    def backward(_: mx.array, dy: mx.array, __: mx.array) -> mx.array:
        return mx.take(dy.reshape(-1, dy.shape[-1]), inverse, axis=0)

    return cast(mx.array, take(x))
