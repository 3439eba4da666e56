"""How large a Phi-3 is, from its config.json alone: no weights are needed, nor a download."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_yoda.config.lora_names import matches_target, pattern_value
from mlx_yoda.config.schema import LoraConfig

_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Sizes:
    """What the memory plan needs to know of a model and its adapter.

    Attributes:
        hidden, intermediate, layers, heads, vocabulary: as in config.json.
        qkv: width of the fused query, key and value projection.
        item: bytes of an activation.
        weights: bytes of the base's weights, quantised if they are.
        quantized: whether they are.
        adapter: trainable parameters.
        first: the first decoder layer that is adapted; no gradient reaches those below it.
        dora: whether the adapter is DoRA's, which keeps the outputs of its layers as well.
        window: tokens that a token sees, or None for all.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    qkv: int
    item: int
    weights: int
    quantized: bool
    adapter: int
    first: int
    dora: bool
    window: int | None


def sizes_of(config: Mapping[str, Any], lora: LoraConfig, dtype: str | None = None) -> Sizes:
    """Read the sizes of a Phi-3 with an adapter.

    Args:
        config: config.json; `quantization` counts if it is there.
        lora: which modules carry LoRA, and its ranks.
        dtype: what the weights are cast to, or None for the config's own.
    """
    shapes = tensor_shapes(config)
    adapted = adapter_parameters(shapes, lora)
    item = _ITEM[dtype_of(config, dtype)]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    return Sizes(
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        vocabulary=config["vocab_size"],
        qkv=config["hidden_size"] // heads * (heads + 2 * kv_heads),
        item=item,
        weights=_weight_bytes(shapes, item, config.get("quantization")),
        quantized=bool(config.get("quantization")),
        adapter=sum(adapted.values()),
        first=min((int(path.split(".")[2]) for path in adapted if ".layers." in path), default=0),
        dora=lora.use_dora,
        window=config.get("sliding_window"),
    )


def dtype_of(config: Mapping[str, Any], dtype: str | None = None) -> str:
    """What the floating-point weights are cast to, or else stored in."""
    stored: str = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    return dtype or stored


def adapter_parameters(shapes: Mapping[str, tuple[int, ...]], lora: LoraConfig) -> dict[str, int]:
    """Trainable parameters, `r (in + out)`, of each module that is targeted."""
    found = {}
    for name, shape in shapes.items():
        path = name.removesuffix(".weight")
        if len(shape) == 2 and "embed" not in path and matches_target(path, lora):
            found[path] = pattern_value(path, lora.rank_pattern, lora.r) * sum(shape)
    return found


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of a Phi-3, as `Phi3ForCausalLM` names them."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    heads, vocabulary = config["num_attention_heads"], config["vocab_size"]
    kv_heads = config.get("num_key_value_heads") or heads
    head = hidden // heads
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        found |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.self_attn.qkv_proj.weight": ((heads + 2 * kv_heads) * head, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, heads * head),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.mlp.gate_up_proj.weight": (2 * wide, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, wide),
        }
    found["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        found["lm_head.weight"] = (vocabulary, hidden)
    return found


def _weight_bytes(
    shapes: Mapping[str, tuple[int, ...]], item: int, quantization: Mapping[str, Any] | None
) -> int:
    total = 0
    group = quantization.get("group_size", 64) if quantization else 0
    for shape in shapes.values():
        if not quantization or len(shape) == 1 or shape[1] % group:
            total += _product(shape) * item
        else:
            total += _product(shape) * quantization["bits"] // 8
            affine = quantization.get("mode", "affine") == "affine"
            # A scale and a bias for each group, or a scale's byte.
            total += _product(shape) // group * (2 * item if affine else 1)
    return total


def _product(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]
