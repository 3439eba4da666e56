"""What training costs, counted before it begins: products of matrices, and all that lies between.

A machine multiplies matrices at one speed and passes over arrays at another, so two numbers tell
the time of a step: `seconds = products / FLOP a second + elements / elements a second`. Products
are counted from the architecture; a frozen weight takes part in two of them (forward, and backward
for its input's gradient; it has none of its own), and in a third where its layer is made again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mlx_yoda.data.packing import PackedRows
from mlx_yoda.model.sizes import Sizes
from mlx_yoda.train.recompute import Keep


class Amount(NamedTuple):
    """How much there is to train on, in a step, an epoch or a run.

    Attributes:
        tokens: of all rows.
        targets: tokens that carry loss.
        pairs: of tokens within a row, before any mask: what attention multiplies.
    """

    tokens: float
    targets: float
    pairs: float

    @classmethod
    def of(cls, rows: PackedRows) -> "Amount":
        """Of these rows together."""
        tokens, targets, pairs = rows.lengths.sum(), rows.targets.sum(), (rows.lengths**2).sum()
        return cls(float(tokens), float(targets), float(pairs))


class Work(NamedTuple):
    """What an amount of tokens costs."""

    products: float  # floating-point operations of matrix products
    elements: float  # numbers that everything else passes over


class Speed(NamedTuple):
    """How fast a machine is."""

    products: float  # floating-point operations a second
    elements: float  # numbers a second

    def seconds(self, work: Work) -> float:
        """The time that the work takes."""
        return work.products / self.products + work.elements / self.elements


# Passes over the arrays of a width, in units of one number of `Speed.elements` (which a SwiGLU
# defines: `mlx_yoda.train.calibration`). Fitted to steps on the CPU backend at widths 128 to 1024,
# three batches, every `Keep`, with and without dropout; `python -m benchmarks.cost` shows what they
# miss by. Graphs are built in Python meanwhile, which only the smallest models feel.
_WIDTHS, _WIDTHS_AGAIN = 2.1, 1.5
_PROBABILITIES, _PROBABILITIES_AGAIN = 3.4, 1.9
_DROPPED, _LOGITS = 1.7, 3.8
_UPDATE = 3.0  # of the adapter's numbers, an optimizer step


def work(sizes: Sizes, amount: Amount, keep: Sequence[Keep], *, dropout: bool) -> Work:
    """What forward and backward pass over so much take, optimizer left out.

    A product with a weight is two operations a weight and token, as Kaplan et al. count them (arXiv
    2001.08361, section 2.1), for each time that the weight takes part. Layers below the first
    adapted one run once, before the first step, and are not counted.

    Args:
        sizes: of the model and its adapter.
        amount: what is trained on.
        keep: what each layer keeps for the backward pass.
        dropout: whether the LoRA branch drops.

    Returns:
        Floating-point operations of the products, and how many numbers all else passes over.
    """
    d, q, f = sizes.hidden, sizes.qkv, sizes.intermediate
    tokens, targets = amount.tokens, amount.targets
    lora = 7 * sizes.adapter * tokens  # forward, for A and B, and for the input
    products = lora + 4 * targets * d * sizes.vocabulary
    elements = _LOGITS * targets * sizes.vocabulary
    for index in range(sizes.first, sizes.layers):
        after = targets if index == sizes.layers - 1 else tokens  # what passes o_proj and the MLP
        into, out = 2 * tokens * d * q, 2 * after * d * d
        wide, narrow = 2 * after * d * 2 * f, 2 * after * d * f
        attention = 4 * d * amount.pairs
        products += 2 * (into + out + wide + narrow) + 3 * attention
        products -= into if index == sizes.first else 0  # nobody asks for its input's gradient
        widths = tokens * (2 * d + q) + after * (2 * d + f)
        elements += _WIDTHS * widths + _PROBABILITIES * sizes.heads * amount.pairs
        elements += _DROPPED * dropout * (2 * tokens * d + after * (d + f))
        if keep[index] is not Keep.EVERYTHING:
            products += attention
            elements += _WIDTHS_AGAIN * widths
        if keep[index] is Keep.INPUT:
            products += into + out
            elements += _PROBABILITIES_AGAIN * sizes.heads * amount.pairs
        if keep[index] in (Keep.ATTENTION, Keep.INPUT):
            products += wide
    return Work(products, elements)


def update(sizes: Sizes) -> Work:
    """What an optimizer's update takes: clipping and AdamW over the adapter."""
    return Work(0.0, _UPDATE * sizes.adapter)
