"""How a config.json turns positions, whichever version of Transformers wrote it.

Before version 5 it said `rope_theta` and `rope_scaling`, since then `rope_parameters`, which may
hold one object for each kind of layer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_yoda.errors import UserError

Config = Mapping[str, Any]

# What each kind of scaling reads besides rope_theta, in mlx-lm and in Transformers alike.
KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": (
        *("factor", "low_freq_factor", "high_freq_factor"),
        "original_max_position_embeddings",
    ),
    "yarn": (
        *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim"),
    ),
}
_OPTIONAL = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")
_MEASURED = ("llama3", "yarn")  # by the length that the model was first trained for


@dataclass(frozen=True)
class Rotary:
    """How the positions of one kind of layer are turned.

    Attributes:
        theta: the base of the frequencies.
        kind: of scaling; `default` is none.
        keys: all that the file says of it.
    """

    theta: float
    kind: str
    keys: Config

    def scaling(self, maximum: int) -> dict[str, Any] | None:
        """What mlx-lm calls rope_scaling, with Transformers' defaults.

        Args:
            maximum: `max_position_embeddings`.

        Raises:
            UserError: a key is missing without which it means nothing.
        """
        if self.kind == "default":
            return None
        wanted = KINDS.get(self.kind, tuple(self.keys))
        found = {key: self.keys[key] for key in wanted if self.keys.get(key) is not None}
        if self.kind in _MEASURED:
            found.setdefault("original_max_position_embeddings", maximum)
        if not (found.get("mscale") and found.get("mscale_all_dim")):  # one alone is not read
            found = {key: value for key, value in found.items() if not key.startswith("mscale")}
        for key in wanted:
            if key not in (*found, *_OPTIONAL):
                raise UserError(f"config.json turns positions by {self.kind!r} but gives no {key}.")
        return {**found, "rope_type": self.kind}

    def departures(self, computed: tuple[str, ...]) -> list[str]:
        """What of it is not computed here, where scaling of certain kinds is."""
        if self.kind not in computed:
            return [f"rope_type {self.kind!r} ({', '.join(computed)} can be computed)"]
        found = []
        if self.keys.get("partial_rotary_factor") not in (None, 1, 1.0):
            found.append(f"partial_rotary_factor {self.keys['partial_rotary_factor']} (1 is)")
        if self.kind == "yarn":
            usual, wanted = self._attention_factor(), self.keys.get("attention_factor")
            if wanted is not None and not math.isclose(wanted, usual, rel_tol=1e-6):
                found.append(f"yarn's attention_factor {wanted} ({usual:.6g} is)")
            if self.keys.get("truncate", True) is not True:
                found.append(f"yarn's truncate {self.keys['truncate']} (True is)")
        return found

    def _attention_factor(self) -> float:
        """YaRN's own (Peng et al., arXiv 2309.00071), or the ratio that DeepSeek's files give."""
        m, all_dim = self.keys.get("mscale"), self.keys.get("mscale_all_dim")
        logarithm = 0.1 * math.log(max(self.keys.get("factor") or 1, 1))
        if m and all_dim:
            return float((m * logarithm + 1) / (all_dim * logarithm + 1))
        return logarithm + 1


def rotary(config: Config, theta: float = 10_000.0) -> Rotary:
    """How a config.json turns positions in all layers.

    Args:
        config: config.json, or its text part.
        theta: the family's default.
    """
    scaling, parameters = config.get("rope_scaling") or {}, config.get("rope_parameters") or {}
    keys = {**parameters, **scaling}
    return _rotary(keys, keys.get("rope_theta") or config.get("rope_theta") or theta)


def rotary_by_layer(config: Config, theta: float, local: float) -> tuple[Rotary, Rotary]:
    """How a config.json turns positions in layers that see all, and in those with a window.

    Args:
        config: config.json, or its text part.
        theta: the family's default where all is seen.
        local: its default with a window.
    """
    parameters = config.get("rope_parameters") or {}
    if "full_attention" not in parameters and "sliding_attention" not in parameters:
        parameters = {"full_attention": parameters}
    full = {**(parameters.get("full_attention") or {}), **(config.get("rope_scaling") or {})}
    sliding = parameters.get("sliding_attention") or {}
    return (
        _rotary(full, full.get("rope_theta") or config.get("rope_theta") or theta),
        _rotary(sliding, sliding.get("rope_theta") or config.get("rope_local_base_freq") or local),
    )


def as_before_5(config: Config) -> dict[str, Any]:
    """The keys of before version 5, which most of mlx-lm's models read, in their place.

    Empty where the file has them, or nothing of the kind.
    """
    found: dict[str, Any] = {}
    text = config.get("text_config")
    if isinstance(text, Mapping) and (inner := as_before_5(text)):
        found["text_config"] = {**text, **inner}
    keys = config.get("rope_parameters")
    if not keys or "rope_theta" in config:
        return found
    full = keys.get("full_attention") or keys
    if "rope_theta" in full:
        found["rope_theta"] = full["rope_theta"]
        if full.get("rope_type", "default") != "default":
            found["rope_scaling"] = full
    if local := (keys.get("sliding_attention") or {}).get("rope_theta"):
        found["rope_local_base_freq"] = local
    return found


def _rotary(keys: Config, theta: float) -> Rotary:
    return Rotary(theta, keys.get("rope_type") or keys.get("type") or "default", keys)
