"""Write a Phi-3 with random weights, of any depth and width, in Hugging Face's layout.

With the real tokenizer and real rows it lets the whole program run at real widths without a
download:

    python -m benchmarks.random_phi3 /tmp/phi3 --config ../shared/data/phi-3-mini-4k-instruct \\
        --tokenizer ../shared/data/phi-3-mini-4k-instruct --layers 2
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_yoda.errors import UserError
from mlx_yoda.files import new_directory
from mlx_yoda.model.sizes import tensor_shapes

SHARD_BYTES = 1 << 30
_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
# Phi-3's generation_config.json stops at these: 32000, 32001 and 32007 in the real vocabulary.
_STOPS = ("<|endoftext|>", "<|assistant|>", "<|end|>")


def write_random_phi3(
    destination: Path,
    config: Mapping[str, Any],
    *,
    tokenizer: Path | None = None,
    dtype: str = "float32",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the folder: config, weights from N(0, initializer_range), tokenizer if there is one.

    Weights are made and written shard by shard, so memory holds one shard at a time.

    Args:
        destination: a folder that does not exist yet.
        config: Phi-3's config.json; its token ids give way to the tokenizer's.
        tokenizer: folder with the tokenizer's files, which are copied.
        dtype: float32, float16 or bfloat16.
        seed: of the weights; each tensor has a key of its own.
        shard_bytes: largest size of a weight file, but for single tensors beyond it.

    Raises:
        UserError: the destination exists, or the sizes do not fit together.
    """
    if destination.exists():
        raise UserError(f"{destination} exists: name a new folder.")
    config = {**config, "torch_dtype": dtype}
    config.pop("dtype", None)
    _check_sizes(config)
    tokens = _special_tokens(tokenizer) if tokenizer else {}
    config |= _token_ids(config, tokens)
    with new_directory(destination) as folder:
        if tokenizer:
            _copy_tokenizer(tokenizer, folder)
        stops = [tokens[name] for name in _STOPS if name in tokens]
        _write_json(folder / "config.json", config)
        _write_json(
            folder / "generation_config.json",
            {
                "_from_model_config": True,
                "bos_token_id": config["bos_token_id"],
                "eos_token_id": stops or config["eos_token_id"],
                "pad_token_id": config["pad_token_id"],
            },
        )
        _write_weights(folder, config, _DTYPES[dtype], seed, shard_bytes)


def _check_sizes(config: Mapping[str, Any]) -> None:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    if hidden % (2 * heads):
        raise UserError(f"a width of {hidden} does not make {heads} heads of an even size.")
    if heads % kv_heads:
        raise UserError(f"{heads} heads cannot share {kv_heads} key-value heads evenly.")


def _special_tokens(tokenizer: Path) -> dict[str, int]:
    """Content → id of the added tokens; `""` stands for the highest id of the vocabulary."""
    try:
        content = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{tokenizer} has no readable tokenizer.json: {error}.") from None
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    return {**added, "": max([*added.values(), *content["model"]["vocab"].values()])}


def _token_ids(config: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, int | None]:
    """The ids of the special tokens: the tokenizer's, or the config's where they are possible."""
    size = config["vocab_size"]
    if tokens.get("", 0) >= size:
        raise UserError(f"the tokenizer has ids up to {tokens['']}, vocab_size is only {size}.")
    given = {
        key: value if value is not None and value < size else None
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        for value in [config.get(key)]
    }
    end = tokens.get("<|endoftext|>", given["eos_token_id"])
    pad = tokens.get("<|endoftext|>", given["pad_token_id"])
    return {
        "bos_token_id": tokens.get("<s>", given["bos_token_id"]),
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _write_weights(
    folder: Path, config: Mapping[str, Any], dtype: mx.Dtype, seed: int, shard_bytes: int
) -> None:
    plan = list(_shards(tensor_shapes(config), dtype.size, shard_bytes))
    std = config.get("initializer_range", 0.02)
    key = mx.random.key(seed)
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(plan, start=1):
        name = f"model-{number:05d}-of-{len(plan):05d}.safetensors"
        name = name if len(plan) > 1 else "model.safetensors"
        weights = {}
        for tensor, shape in shard.items():
            key, own = mx.random.split(key)
            norm = len(shape) == 1
            weights[tensor] = mx.ones(shape, dtype) if norm else _normal(shape, std, dtype, own)
            mx.eval(weights[tensor])  # one tensor at a time keeps the float32 draws few
            total += weights[tensor].nbytes
            weight_map[tensor] = name
        mx.save_safetensors(str(folder / name), weights, metadata={"format": "pt"})
    if len(plan) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _write_json(folder / "model.safetensors.index.json", index)


def _normal(shape: tuple[int, ...], std: float, dtype: mx.Dtype, key: mx.array) -> mx.array:
    return (std * mx.random.normal(shape, key=key)).astype(dtype)


def _shards(
    tensors: Mapping[str, tuple[int, ...]], item: int, limit: int
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Cut the tensors, in order, into groups of at most `limit` bytes."""
    group: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in tensors.items():
        n_bytes = item * math.prod(shape)
        if group and size + n_bytes > limit:
            yield group
            group, size = {}, 0
        group[name] = shape
        size += n_bytes
    yield group


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_phi3", description="Write a Phi-3 with random weights."
    )
    parser.add_argument("destination", type=Path, help="folder to make")
    parser.add_argument(
        "--config", type=Path, required=True, help="a config.json, or a folder with one"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer to copy")
    parser.add_argument("--layers", type=int, dest="num_hidden_layers")
    parser.add_argument("--hidden-size", type=int)
    parser.add_argument("--intermediate-size", type=int)
    parser.add_argument("--heads", type=int, dest="num_attention_heads")
    parser.add_argument("--kv-heads", type=int, dest="num_key_value_heads")
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--dtype", choices=sorted(_DTYPES), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    """Run from the command line."""
    options = vars(_parser().parse_args())
    destination, config_path = options.pop("destination"), options.pop("config")
    tokenizer, dtype, seed = (options.pop(key) for key in ("tokenizer", "dtype", "seed"))
    try:
        file = config_path / "config.json" if config_path.is_dir() else config_path
        config = json.loads(file.read_text(encoding="utf-8"))
        config |= {key: value for key, value in options.items() if value is not None}
        write_random_phi3(destination, config, tokenizer=tokenizer, dtype=dtype, seed=seed)
    except (UserError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    parameters = sum(math.prod(shape) for shape in tensor_shapes(config).values())
    sys.stderr.write(f"{destination}: {parameters:,} parameters in {dtype}\n")


if __name__ == "__main__":
    main()
