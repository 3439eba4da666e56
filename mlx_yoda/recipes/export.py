"""An adapter for another program: PEFT, mlx-lm, llama.cpp, or fused into its base for all."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda import files
from mlx_yoda.adapters.gguf import check_gguf, save_gguf
from mlx_yoda.adapters.mlx_lm import save_mlx_lm
from mlx_yoda.adapters.peft import Adapter, save_adapter
from mlx_yoda.config.lora_names import scale_of
from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import check_fit
from mlx_yoda.hub.card import CARD_FILE, LOSS_FILE
from mlx_yoda.lora.merge import Loss, fused, loss
from mlx_yoda.model import folder as model_folder
from mlx_yoda.model.config_json import read_config
from mlx_yoda.model.load import (
    MODEL_FILES,
    fetch,
    load_lazily,
    load_shapes,
    load_tokenizer_in,
)
from mlx_yoda.model.tokenizer_files import copy_tokenizer
from mlx_yoda.recipes.respond import on_named_base, read_adapter

Format = Literal["peft", "mlx-lm", "merged", "gguf"]
_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the folder, or for GGUF the file.
        base: the base that went in or was looked at, or what the adapter calls it.
        unchecked: why the adapter could not be held against its base, or None.
        losses: on a quantised base that was fused into, module path → what quantising the fused
            weight again loses, whether it was done or not.
    """

    path: Path
    base: str | None
    unchecked: str | None = None
    losses: dict[str, Loss] = field(default_factory=dict)


def export(
    source: str,
    destination: Path,
    to: Format,
    model: ModelConfig,
    *,
    base_of_adapter: bool,
    requantize: bool = False,
) -> Exported:
    """Write an adapter in another program's format, once it is known to fit its base.

    PEFT's and mlx-lm's files are written without a look at the base where it cannot be had.

    Args:
        source: folder (an output folder, a checkpoint) or Hub id, of PEFT or of mlx-lm.
        destination: folder to make, or for GGUF the file; it appears only when it is whole.
        to: the format.
        model: the base, where one is needed; `dtype` is that of merged weights.
        base_of_adapter: take the base that the adapter names instead.
        requantize: fuse into a quantised base and quantise again, at the loss that is measured.

    Raises:
        UserError: adapter or base cannot be read, do not fit together, or cannot be written so,
            or the disk is full.
    """
    adapter = read_adapter(source)
    if destination.exists():
        raise UserError(f"{destination} exists: name a new one.")
    files.sweep(destination.parent)
    with files.writing(destination):
        return _write(destination, to, adapter, source, model, base_of_adapter, requantize)


def _write(
    destination: Path,
    to: Format,
    adapter: Adapter,
    source: str,
    model: ModelConfig,
    base_of_adapter: bool,
    requantize: bool,
) -> Exported:
    if to in ("peft", "mlx-lm"):
        unchecked = _check_if_possible(adapter, model, source, base_of_adapter)
        if to == "peft":
            _save_peft(destination, adapter, source)
        else:
            with files.new_directory(destination) as aside:
                save_mlx_lm(aside, adapter)
        return Exported(destination, adapter.base_model_name_or_path, unchecked)
    if base_of_adapter:
        model = on_named_base(model, adapter, source)
    if to == "merged":
        return _merge(destination, adapter, model, requantize)
    config = read_config(_fetch(adapter, model))
    check_gguf(adapter, config)
    check_fit(_open_base(adapter, model), adapter)
    save_gguf(destination, adapter, config)
    return Exported(destination, model.model_name_or_path)


def _fetch(adapter: Adapter, model: ModelConfig) -> Path:
    """The base's folder, with its weights only if the adapter has copies of some.

    Raises:
        UserError: it cannot be had.
    """
    wanted = MODEL_FILES if adapter.base_weights else ["config.json", "*.py"]
    return fetch(model.model_name_or_path, model.model_revision, wanted)


def _open_base(adapter: Adapter, model: ModelConfig) -> nn.Module:
    """The base, to hold an adapter against its shapes, and against weights that it has copies of.

    Raises:
        UserError: it cannot be had or built.
    """
    folder, trust = _fetch(adapter, model), model.trust_remote_code
    if adapter.base_weights:
        return load_lazily(folder, None, trust)[0]
    return load_shapes(folder, trust)


def _check_if_possible(
    adapter: Adapter, model: ModelConfig, source: str, base_of_adapter: bool
) -> str | None:
    """Hold an adapter against its base; says why if that is not here.

    Raises:
        UserError: it does not fit its base, or the base that was named cannot be had.
    """
    try:
        if base_of_adapter:
            model = on_named_base(model, adapter, source)
        base = _open_base(adapter, model)
    except UserError as error:
        if not base_of_adapter or adapter.base_weights:
            raise
        return str(error)
    check_fit(base, adapter)
    return None


def _save_peft(destination: Path, adapter: Adapter, source: str) -> None:
    """A folder with the adapter, and its card and tokenizer if they are there, and no more."""
    with files.new_directory(destination) as aside:
        save_adapter(
            aside,
            adapter.tensors,
            adapter.lora,
            base_model_name_or_path=adapter.base_model_name_or_path or "",
            revision=adapter.revision,
            magnitudes=adapter.magnitudes,
        )
        copy_tokenizer(Path(source), aside)
        for name in (CARD_FILE, LOSS_FILE):
            if (file := Path(source) / name).is_file():
                shutil.copyfile(file, aside / name)


def _merge(destination: Path, adapter: Adapter, model: ModelConfig, requantize: bool) -> Exported:
    """Write the base with the adapter fused in, tensor by tensor, under the base's own names."""
    base = fetch(model.model_name_or_path, model.model_revision, MODEL_FILES)
    skeleton, loaded_config = load_lazily(base, None, model.trust_remote_code)
    check_fit(skeleton, adapter)
    load_tokenizer_in(base, loaded_config, model.trust_remote_code)  # it must be there to go along
    config, weights = read_config(base), model_folder.read_weights(base)
    _check_weights(adapter, config, weights, base)
    if requantize and "quantization" not in config:
        raise UserError(f"{base} is not quantised, so there is nothing to quantise again.")
    merged, losses = _fuse(adapter, config, weights, model.dtype, requantize)
    with files.new_directory(destination) as aside:
        model_folder.copy_companions(base, aside)
        files.write_json(aside / "config.json", _config(config, merged, requantize))
        model_folder.write_weights(aside, merged)
    return Exported(destination, model.model_name_or_path, losses=losses)


def _check_weights(
    adapter: Adapter, config: dict[str, Any], weights: dict[str, mx.array], base: Path
) -> None:
    foreign = "quantization_config" in config and "quantization" not in config
    for path in adapter.tensors:
        weight = weights.get(f"{path}.weight")
        packed = model_folder.packing_of(path, weights, config)
        floating = weight is not None and mx.issubdtype(weight.dtype, mx.floating)
        if weight is None or not (floating or packed) or foreign:
            raise UserError(
                f"{base} does not store the weight of {path} as a plain or an MLX-quantised "
                "matrix of that name: name the original model with --model."
            )


def _fuse(
    adapter: Adapter,
    config: dict[str, Any],
    weights: dict[str, mx.array],
    dtype: str | None,
    requantize: bool,
) -> tuple[dict[str, mx.array], dict[str, Loss]]:
    """All tensors of the merged model, still to be evaluated but for what had to be measured."""
    merged: dict[str, mx.array] = {}
    losses: dict[str, Loss] = {}
    for name in sorted(weights):
        path, _, kind = name.rpartition(".")
        packing = model_folder.packing_of(path, weights, config)
        if packing and kind in ("scales", "biases"):
            continue  # they come with their weight
        array = model_folder.unpacked(path, weights, config) if packing else weights[name]
        to = _DTYPES[dtype] if dtype and mx.issubdtype(array.dtype, mx.floating) else array.dtype
        if kind == "weight" and path in adapter.tensors:
            a, b = adapter.tensors[path]
            magnitude = adapter.magnitudes.get(path)
            exact = fused(array, a, b, scale_of(path, adapter.lora), magnitude)
            if packing:
                packed = mx.quantize(exact.astype(array.dtype), **packing._asdict())
                losses[path] = loss(array, exact, mx.dequantize(*packed, **packing._asdict()))
                if requantize:
                    merged |= zip(_parts(path), packed, strict=False)
                    continue
            merged[name] = exact.astype(to)
        elif packing and requantize:
            merged |= {part: weights[part] for part in _parts(path) if part in weights}
        else:
            merged[name] = array.astype(to)
    weights.clear()
    return merged, losses


def _parts(path: str) -> tuple[str, str, str]:
    return f"{path}.weight", f"{path}.scales", f"{path}.biases"


def _config(
    config: dict[str, Any], merged: dict[str, mx.array], requantize: bool
) -> dict[str, Any]:
    """config.json of the merged model: the base's, with what is true of the weights now."""
    config = dict(config)
    if requantize:
        return config
    for key in ("quantization", "quantization_config"):
        config.pop(key, None)
    dtypes = [array.dtype for name, array in merged.items() if name.endswith("proj.weight")]
    names = {dtype: name for name, dtype in _DTYPES.items()}
    config["dtype" if "dtype" in config else "torch_dtype"] = names[dtypes[0]]
    return config
