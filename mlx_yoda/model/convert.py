"""From Hugging Face's layout to MLX's: other dtype, fewer bits."""

import contextlib
import sys
from pathlib import Path

import mlx.nn as nn
from mlx_lm.utils import quantize_model, save

from mlx_yoda.errors import UserError
from mlx_yoda.files import new_directory
from mlx_yoda.model.load import MODEL_FILES, fetch, load_lazily, load_tokenizer_in

GROUP_SIZES = (32, 64, 128)
BITS = (2, 3, 4, 5, 6, 8)


def convert(
    source: str | Path,
    destination: Path,
    *,
    bits: int | None = None,
    group_size: int = 64,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write a model folder in MLX layout, which `model.load` reads as any other.

    Layers whose width is no multiple of the group size stay as they are. The weights pass
    through memory file by file where MLX can do so.

    Args:
        source: folder or Hub id of the model.
        destination: folder to make; it appears only when it is whole.
        bits: quantise linear layers and embedding to so many bits a weight; None does not.
        group_size: weights that share a scale: 32, 64 or 128.
        dtype: float32, float16 or bfloat16 for what is not quantised (and for scales and biases);
            None leaves it.
        revision: branch, tag or commit of a Hub id.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        UserError: the destination exists, the source is no model, or it cannot be quantised so.
    """
    if destination.exists():
        raise UserError(f"{destination} exists: name a new folder.")
    if bits is not None and (bits not in BITS or group_size not in GROUP_SIZES):
        raise UserError(
            f"{bits} bits in groups of {group_size} cannot be: choose bits from "
            f"{_listed(BITS)} and the group size from {_listed(GROUP_SIZES)}."
        )
    path = fetch(source, revision, MODEL_FILES)
    model, config = load_lazily(path, dtype, trust_remote_code)
    tokenizer = load_tokenizer_in(path, config, trust_remote_code)
    with contextlib.redirect_stdout(sys.stderr):
        if dtype is not None:
            config = {**config, "torch_dtype": dtype}
            config.pop("dtype", None)
        if bits is not None:
            model, config = _quantised(model, config, bits, group_size, path)
        with new_directory(destination) as folder:
            save(folder, path, model, tokenizer, config)


def _quantised(
    model: nn.Module, config: dict, bits: int, group_size: int, path: Path
) -> tuple[nn.Module, dict]:
    if "quantization" in config:
        raise UserError(f"{path} is quantised already: convert from the original weights.")
    model, config = quantize_model(model, config, group_size, bits)
    kinds = nn.QuantizedLinear | nn.QuantizedEmbedding
    if not any(isinstance(module, kinds) for module in model.modules()):
        raise UserError(
            f"no layer of {path} is wide enough to be quantised in groups of {group_size}."
        )
    return model, config


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
