"""Adapters as GGUF files, which llama.cpp takes with `--lora`.

The layout is that of llama.cpp's convert_lora_to_gguf.py: `general.type` "adapter",
`adapter.type` "lora", one `adapter.lora.alpha`, and for each weight of the base its name with
`.lora_a` `(r, in)` and `.lora_b` `(out, r)`. llama.cpp computes the scale as alpha / r of each
pair, and takes alpha 0 for scale 1; where ours is another (rsLoRA, alpha_pattern, alpha 0), the
quotient goes into B.
"""

import contextlib
import errno
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_yoda import files
from mlx_yoda.adapters.peft import Adapter
from mlx_yoda.config.lora_names import scale_of
from mlx_yoda.errors import UserError

# Other architectures permute rows of their projections, which llama.cpp's own script knows.
_ARCHITECTURES = {"phi3": "PHI3"}


def save_gguf(path: Path, adapter: Adapter, base_config: Mapping[str, Any]) -> None:
    """Write an adapter for llama.cpp, in float32.

    Args:
        path: the file to make; it appears only when it is whole.
        adapter: what to write. B keeps its bits where the scale is lora_alpha / r.
        base_config: config.json of the base: its architecture and number of layers.

    Raises:
        UserError: as `check_gguf`, or the file exists.
    """
    check_gguf(adapter, base_config)
    if path.exists():
        raise UserError(f"{path} exists: name a new file.")
    gguf, kind = _package(), base_config["model_type"]
    architecture = gguf.MODEL_ARCH[_ARCHITECTURES[kind]]
    names = gguf.get_tensor_name_map(architecture, base_config["num_hidden_layers"])
    alpha = float(adapter.lora.lora_alpha) or 1.0
    arrays: dict[str, np.ndarray] = {}
    for module, (a, b) in adapter.tensors.items():
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise UserError(f"llama.cpp has no name for {module} in a {kind}.")
        ratio = scale_of(module, adapter.lora) / (alpha / a.shape[0])
        arrays[f"{name}.lora_a"] = _array(a)
        arrays[f"{name}.lora_b"] = _array(b if ratio == 1 else b * ratio)
    with files.new_file(path) as aside:
        writer = gguf.GGUFWriter(aside, gguf.MODEL_ARCH_NAMES[architecture])
        with contextlib.closing(writer):
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
            for name, array in arrays.items():
                writer.add_tensor(name, array)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        _check_written(gguf, aside, arrays)


def check_gguf(adapter: Adapter, base_config: Mapping[str, Any]) -> None:
    """Refuse what cannot be written for llama.cpp.

    Raises:
        UserError: the base is none that we can name the weights of, the adapter is DoRA, which
            llama.cpp does not know, or the package `gguf` is missing.
    """
    kind = str(base_config.get("model_type"))
    if kind not in _ARCHITECTURES:
        raise UserError(
            f"the base is a {kind}, and GGUF adapters are written for {', '.join(_ARCHITECTURES)} "
            "alone: run llama.cpp's convert_lora_to_gguf.py on the PEFT adapter."
        )
    if adapter.lora.use_dora:
        raise UserError("llama.cpp knows no DoRA: fuse the adapter with --to merged instead.")
    _package()


def _check_written(gguf: Any, file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Read a file back: gguf writes by `ndarray.tofile`, which says nothing of a full disk.

    Raises:
        OSError: it does not hold these arrays.
    """
    try:
        found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
        whole = found.keys() == arrays.keys() and all(
            np.array_equal(found[name], array) for name, array in arrays.items()
        )
    except (ValueError, IndexError):  # it ends too early
        whole = False
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


def _array(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32), order="C")


def _package() -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise UserError(
            "the package gguf is not installed: pip install 'mlx-yoda[gguf]' brings it."
        ) from None
