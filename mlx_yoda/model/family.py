"""Phi-3 and its relatives as Transformers computes them.

mlx-lm's phi3 leaves out three things that change the logits: the sliding window of the 4k
models, LongRoPE's short factors, and the configuration as Transformers 5 writes it. They are made
good here, in a subclass that mlx-lm's loader is told to build; its weights have the same names.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models import phi3
from mlx_lm.models.cache import KVCache, RotatingKVCache

from mlx_yoda.errors import UserError
from mlx_yoda.model.rope import LongRope

_LONGROPE = ("longrope", "su", "yarn")  # what Phi-3's config.json has called the same thing


@dataclass
class FamilyArgs(phi3.ModelArgs):
    """mlx-lm's arguments, and those that it leaves out.

    Attributes:
        sliding_window: tokens that a token sees, itself included; None for all.
        longrope: the factors, as `LongRope` takes them, or None.
    """

    sliding_window: int | None = None
    longrope: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> "FamilyArgs":
        """Read config.json, written by any version of Transformers.

        Raises:
            UserError: it asks for something that is not computed here.
        """
        args: FamilyArgs = super().from_dict({**params, **_rope_keys(params)})
        return args


class FamilyModel(phi3.Model):
    """A model of Phi-3's family whose logits are Transformers' at any length."""

    def __init__(self, args: FamilyArgs) -> None:
        super().__init__(args)
        self.window = args.sliding_window
        self.longrope: LongRope | None = None
        if args.longrope is not None:
            dims = int(args.hidden_size // args.num_attention_heads * args.partial_rotary_factor)
            rope = LongRope(dims, args.rope_theta, args.longrope, args.max_position_embeddings)
            self.longrope = rope
            for layer in self.layers:
                layer.self_attn.rope = rope

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """Map tokens `(B, T)` to logits `(B, T, V)`; without a cache they are whole texts."""
        if cache is not None:
            return super().__call__(inputs, cache)
        length = inputs.shape[1]
        narrow = self.window is not None and self.window < length
        with self.expecting(length):
            return super().__call__(inputs, self.make_cache() if narrow else None)

    def make_cache(self) -> list[KVCache | RotatingKVCache]:
        """The cache that mlx-lm generates with: one that forgets what the window does not see."""
        if self.window is None:
            return [KVCache() for _ in self.layers]
        return [RotatingKVCache(max_size=self.window) for _ in self.layers]

    @contextmanager
    def expecting(self, length: int) -> Iterator[None]:
        """Use LongRoPE's factors for a text of `length` tokens for a while."""
        if self.longrope is None:
            yield
            return
        try:
            self.longrope.long = length > self.longrope.original
            yield
        finally:
            self.longrope.long = False


def longest_row(model: Any) -> int | None:
    """The longest row that can be trained on, in tokens, or None for any.

    Rows share a batch, and LongRoPE's factors are those of a whole row: rows on both sides of the
    limit would need both sets at once.
    """
    if isinstance(model, FamilyModel) and model.longrope is not None:
        return model.longrope.original
    return None


def expecting(model: Any, length: int) -> AbstractContextManager[None]:
    """Tell a model how long the text is that it is about to see in pieces."""
    return model.expecting(length) if isinstance(model, FamilyModel) else nullcontext()


def window_of(model: Any) -> int | None:
    """How many tokens a token sees, itself included; None for all before it."""
    return model.window if isinstance(model, FamilyModel) else None


def _rope_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of mlx-lm and of `FamilyArgs` for what config.json says of positions."""
    scaling = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ("default", *_LONGROPE):
        raise UserError(
            f"the model scales its positions by {kind!r}, which is not known of Phi-3's family: "
            "its logits would be wrong."
        )
    head = config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim") not in (None, head):
        raise UserError(
            f"the model's head_dim {config['head_dim']} is not hidden_size / "
            f"num_attention_heads = {head}, which is not known of Phi-3's family."
        )
    found: dict[str, Any] = {"rope_scaling": None}
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in scaling:
            found[key] = scaling[key]
    if kind in _LONGROPE:
        maximum = config.get("max_position_embeddings", 4096)
        original = config.get("original_max_position_embeddings", maximum)
        scaling.setdefault("original_max_position_embeddings", original)
        found["longrope"] = scaling
    return found
