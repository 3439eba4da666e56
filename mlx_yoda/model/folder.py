"""The weight files of a model folder: read lazily, written in shards as Hugging Face names them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_yoda import files
from mlx_yoda.config.quantization import Packing

SHARD_BYTES = 2 << 30  # what one shard holds is in memory while it is written
_INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


def read_weights(folder: Path) -> dict[str, mx.array]:
    """Name → tensor of all `model*.safetensors`; a tensor is read when it is evaluated."""
    found: dict[str, mx.array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        arrays = mx.load(str(file))
        assert isinstance(arrays, dict)
        found |= arrays
    return found


def packing_of(path: str, weights: dict[str, mx.array], config: dict[str, Any]) -> Packing | None:
    """How the weight of the module at `path` is packed, or None if it is not."""
    quantization = config.get("quantization")
    if not quantization or f"{path}.scales" not in weights:
        return None
    own = quantization.get(path)
    keys = own if isinstance(own, dict) else quantization
    return Packing(keys["group_size"], keys["bits"], keys.get("mode", "affine"))


def unpacked(path: str, weights: dict[str, mx.array], config: dict[str, Any]) -> mx.array:
    """The weight `(out, in)` of the module at `path`, dequantised if it is packed."""
    packing, weight = packing_of(path, weights, config), weights[f"{path}.weight"]
    if packing is None:
        return weight
    scales, biases = weights[f"{path}.scales"], weights.get(f"{path}.biases")
    return mx.dequantize(weight, scales, biases, **packing._asdict())


def write_weights(
    folder: Path, weights: dict[str, mx.array], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors as one file, or as shards with an index where they are large.

    Args:
        folder: where to; it is there.
        weights: name → tensor, evaluated shard by shard. It is emptied, so that what has been
            written can be let go of.
        shard_bytes: largest size of a file, but for single tensors beyond it.
    """
    shards = list(_shards(weights, shard_bytes))
    weight_map: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file = file if len(shards) > 1 else "model.safetensors"
        shard = {name: weights.pop(name) for name in names}
        mx.save_safetensors(str(folder / file), shard, metadata={"format": "pt"})
        total += sum(array.nbytes for array in shard.values())
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        files.write_json(folder / _INDEX, index)


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what lies beside the weights: tokenizer, generation settings, code, licence."""
    for file in sorted(source.iterdir()):
        weights = file.suffix in _WEIGHTS or file.name.endswith(".index.json")
        if file.is_file() and not weights and file.name not in ("config.json", "README.md"):
            shutil.copyfile(file, folder / file.name)


def _shards(weights: dict[str, mx.array], limit: int) -> Iterator[list[str]]:
    """Cut the names, in order, into groups of at most `limit` bytes."""
    group: list[str] = []
    size = 0
    for name, array in weights.items():
        if group and size + array.nbytes > limit:
            yield group
            group, size = [], 0
        group.append(name)
        size += array.nbytes
    yield group
