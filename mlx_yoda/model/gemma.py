"""Gemma 1 and 3 as Transformers computes them.

mlx-lm's gemma takes the exact GELU where Transformers takes its tanh formula, and its gemma3_text
rounds the factor of the embedding, √hidden_size, to bfloat16 in every dtype. They are made good
here, in subclasses that mlx-lm's loader is told to build; their weights have the same names.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gemma, gemma3, gemma3_text


class GemmaModel(gemma.Model):
    """A Gemma 1 whose logits are Transformers'."""

    def __init__(self, args: gemma.ModelArgs) -> None:
        super().__init__(args)
        for layer in self.layers:
            layer.mlp = TanhMLP(args.hidden_size, args.intermediate_size)


class TanhMLP(gemma.MLP):
    """Gemma's MLP with GELU by its tanh formula (Hendrycks and Gimpel, arXiv 1606.08415)."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map `(..., D)` to `(..., D)`."""
        return self.down_proj(nn.gelu_approx(self.gate_proj(x)) * self.up_proj(x))


class Gemma3TextModel(gemma3_text.Model):
    """A Gemma 3 whose embedding is scaled by √hidden_size as its own dtype rounds it."""

    def __call__(
        self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None
    ) -> mx.array:
        """Map tokens `(B, T)` to logits `(B, T, V)`."""
        h = self.model.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        return super().__call__(inputs, cache, self._corrected(h))

    def _corrected(self, h: mx.array) -> mx.array:
        """`h` times the right factor over that by which mlx-lm will multiply it."""
        root = self.args.hidden_size**0.5
        right = mx.array(root, h.dtype).astype(mx.float32)
        theirs = mx.array(root, mx.bfloat16).astype(h.dtype).astype(mx.float32)
        return h if h.dtype == mx.bfloat16 else h * (right / theirs).astype(h.dtype)


class Gemma3Model(gemma3.Model):
    """The text part of an image-text Gemma 3, likewise."""

    def __init__(self, args: gemma3.ModelArgs) -> None:
        super().__init__(args)
        self.language_model = Gemma3TextModel(gemma3_text.ModelArgs.from_dict(args.text_config))
