"""The families of models whose config.json is checked: which of its keys are computed here.

Transformers reads more keys than mlx-lm's models do, and has other defaults. A family says which
keys mlx-lm honours, with Transformers' default, and which it does not know, with the values for
which that is right. What Transformers does not read is not given to mlx-lm either.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_lm.models import gemma, gemma2, gemma3_text, llama, qwen2, qwen3

from mlx_yoda.model.family import FamilyArgs, FamilyModel
from mlx_yoda.model.gemma import Gemma3TextModel, GemmaModel
from mlx_yoda.model.rotary import KINDS, Config, Rotary, rotary, rotary_by_layer

Values = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Family:
    """How the config.json of a model_type is computed.

    Attributes:
        model: the class of mlx-lm's, or ours, that is built.
        args: the class of its arguments.
        honoured: key → Transformers' default, where any value is computed.
        fixed: key → the values that are computed, Transformers' default first.
        own_reader: whether `args` reads config.json itself and checks its positions.
        scalings: kinds of rotary scaling that are computed.
        window: tokens that a token sees in Transformers where here it sees all before it; None
            if there it sees them all too.
        rotaries: how positions are turned, one or one for each kind of layer.
        layers: further arguments, and what of the kinds of layers is not computed.
    """

    model: type
    args: type
    honoured: Config = field(default_factory=dict)
    fixed: Values = field(default_factory=dict)
    own_reader: bool = False
    scalings: tuple[str, ...] = tuple(KINDS)
    window: Callable[[Config], int | None] = lambda config: None
    rotaries: Callable[[Config], tuple[Rotary, ...]] = lambda config: (rotary(config),)
    layers: Callable[[Config], tuple[dict[str, Any], list[str]]] = lambda config: ({}, [])


def _everywhere(config: Config) -> int | None:
    """The window of all layers, or of some whose others see all (Mistral, Gemma 2)."""
    return config.get("sliding_window", 4096)


def _where_switched_on(config: Config) -> int | None:
    """Qwen's window, which the layers from max_window_layers on have if it is switched on."""
    first = 28 if config.get("max_window_layers") is None else config["max_window_layers"]
    some = first < (config.get("num_hidden_layers") or 32)
    some = some or "sliding_attention" in (config.get("layer_types") or ())
    return config.get("sliding_window", 4096) if config.get("use_sliding_window") and some else None


def _gemma3_rotaries(config: Config) -> tuple[Rotary, ...]:
    return rotary_by_layer(config, theta=1_000_000.0, local=10_000.0)


def _gemma3_layers(config: Config) -> tuple[dict[str, Any], list[str]]:
    """mlx-lm takes the kinds of layers as a period n: every n-th layer attends to all tokens."""
    _, local = _gemma3_rotaries(config)
    count, types = config.get("num_hidden_layers") or 26, config.get("layer_types")
    period = config.get("sliding_window_pattern") or 6
    if types is not None:
        possible = (p for p in range(1, count + 1) if types == _periodic(p, count))
        period = next(possible, 0)
    found = local.departures(("default",))
    if not 1 <= period <= count:
        found.append("layer_types that no period describes (one up to the number of layers does)")
    arguments = {"sliding_window_pattern": period or min(6, count)}
    return {"rope_local_base_freq": local.theta, **arguments}, found


def _periodic(period: int, count: int) -> list[str]:
    kinds = ("full_attention", "sliding_attention")
    return [kinds[bool((index + 1) % period)] for index in range(count)]


_SILU = ("silu", "swish")
_TANH = ("gelu_pytorch_tanh", "gelu_new")  # two names of one formula
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
_MISTRAL = {key: value for key, value in _LLAMA.items() if not key.endswith("_bias")} | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
_QWEN2 = {key: value for key, value in _MISTRAL.items() if key != "head_dim"} | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}
_GEMMA = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
}
_GEMMA2 = _GEMMA | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
}
_GEMMA_FIXED: Values = {
    "attention_bias": (False,),
    "use_bidirectional_attention": (None, False),
}
_TIED: Values = {"tie_word_embeddings": (True,)}

FAMILIES: dict[str, Family] = {
    "phi3": Family(FamilyModel, FamilyArgs, fixed={"hidden_act": _SILU}, own_reader=True),
    "llama": Family(llama.Model, llama.ModelArgs, _LLAMA, {"hidden_act": _SILU}),
    "mistral": Family(
        llama.Model, llama.ModelArgs, _MISTRAL, {"hidden_act": _SILU}, window=_everywhere
    ),
    "qwen2": Family(
        qwen2.Model, qwen2.ModelArgs, _QWEN2, {"hidden_act": _SILU}, window=_where_switched_on
    ),
    "qwen3": Family(
        qwen3.Model,
        qwen3.ModelArgs,
        _QWEN2 | {"head_dim": 128},
        {"hidden_act": _SILU, "attention_bias": (False,)},
        window=_where_switched_on,
    ),
    "gemma": Family(
        GemmaModel,
        gemma.ModelArgs,
        _GEMMA,
        # The first files said gelu where Transformers always took its tanh formula.
        {**_GEMMA_FIXED, **_TIED, "hidden_act": (*_TANH, "gelu")},
        scalings=("default",),
    ),
    "gemma2": Family(
        gemma2.Model,
        gemma2.ModelArgs,
        _GEMMA2 | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        {**_GEMMA_FIXED, **_TIED, "hidden_activation": _TANH},
        scalings=("default",),
        window=_everywhere,
    ),
    "gemma3_text": Family(
        Gemma3TextModel,
        gemma3_text.ModelArgs,
        _GEMMA2 | {"vocab_size": 262208, "max_position_embeddings": 131072, "sliding_window": 4096},
        # Whether its head is tied is seen in the weights.
        {
            **_GEMMA_FIXED,
            "hidden_activation": _TANH,
            "use_bidirectional_attention": (False, None),
            "attn_logit_softcapping": (None,),
            "final_logit_softcapping": (None,),
        },
        rotaries=_gemma3_rotaries,
        layers=_gemma3_layers,
    ),
}
