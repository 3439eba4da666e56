"""Write and read adapters as PEFT does: adapter_config.json and adapter_model.safetensors.

In PEFT's file the module at `<path>` has the tensors `base_model.model.<path>.lora_A.weight`
`(r, in)` and `base_model.model.<path>.lora_B.weight` `(out, r)`. Our layers have the same
orientation, so both directions only rename (peft/utils/save_and_load.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from mlx_yoda import files
from mlx_yoda.adapters.peft_config import from_peft, to_peft
from mlx_yoda.config.lora_names import layer_order, matches_target, pattern_value
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"
_TENSOR_NAME = re.compile(r"base_model\.model\.(.+)\.(lora_[AB]\.weight|lora_magnitude_vector)")
_MAGNITUDE = "base_model.model.{}.lora_magnitude_vector"  # (out,), of DoRA alone
_DTYPES = ("F32", "F16", "BF16")

Tensors = dict[str, tuple[mx.array, mx.array]]  # path → A (r, in), B (out, r)


@dataclass(frozen=True)
class Adapter:
    """An adapter read from disk.

    Attributes:
        lora: how its layers are made; the initialisation has no more meaning.
        tensors: module path → A `(r, in)` and B `(out, r)`, float32.
        base_model_name_or_path: the base it was trained on, if the file says so.
        revision: the base's revision on the Hub, if the file says so.
        magnitudes: module path → DoRA's m `(out,)`, float32; empty without DoRA.
    """

    lora: LoraConfig
    tensors: Tensors
    base_model_name_or_path: str | None
    revision: str | None = None
    magnitudes: dict[str, mx.array] = field(default_factory=dict)

    def weights(self) -> dict[str, dict[str, mx.array]]:
        """The tree that a model takes: path → name → array."""
        tree = {path: {"lora_A": a, "lora_B": b} for path, (a, b) in self.tensors.items()}
        for path, magnitude in self.magnitudes.items():
            tree[path]["lora_magnitude_vector"] = magnitude
        return tree


def save_adapter(
    directory: Path,
    tensors: Mapping[str, tuple[mx.array, mx.array]],
    lora: LoraConfig,
    *,
    base_model_name_or_path: str,
    revision: str | None = None,
    magnitudes: Mapping[str, mx.array] | None = None,
) -> None:
    """Write an adapter that PEFT's `PeftModel.from_pretrained` loads as it is.

    Args:
        directory: where both files go; it is made if need be. Each file is replaced as a whole.
        tensors: module path → A `(r, in)` and B `(out, r)`, written as float32.
        lora: how the layers were made.
        base_model_name_or_path: the base, as PEFT will look for it.
        revision: the base's revision on the Hub.
        magnitudes: module path → DoRA's m `(out,)`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    named = {
        f"base_model.model.{path}.lora_{letter}.weight": _row_major(array)
        for path, pair in tensors.items()
        for letter, array in zip("AB", pair, strict=True)
    }
    for path, magnitude in (magnitudes or {}).items():
        named[_MAGNITUDE.format(path)] = _row_major(magnitude)
    content = safetensors.numpy.save(named, metadata={"format": "pt"})
    files.write_bytes(directory / TENSOR_FILE, content)
    files.write_json(directory / CONFIG_FILE, to_peft(lora, base_model_name_or_path, revision))


def load_adapter(directory: Path) -> Adapter:
    """Read an adapter that PEFT or this program saved.

    Args:
        directory: the folder with adapter_config.json and adapter_model.safetensors.

    Raises:
        UserError: a file is missing or broken, the adapter needs something we do not do, or its
            tensors do not fit its configuration.
    """
    config_file, tensor_file = directory / CONFIG_FILE, directory / TENSOR_FILE
    keys = _read_config(config_file)
    lora = from_peft(keys, str(config_file))
    tensors, magnitudes = _read_tensors(tensor_file, lora.use_dora)
    for path, (a, b) in tensors.items():
        _check_pair(path, a, b, lora, tensor_file)
    base, revision = (
        value if isinstance(value := keys.get(key), str) else None
        for key in ("base_model_name_or_path", "revision")
    )
    return Adapter(lora, tensors, base, revision, magnitudes)


def _row_major(array: mx.array) -> np.ndarray:
    """Copy to NumPy; safetensors would write a transposed view's memory as it lies."""
    return np.array(array.astype(mx.float32), order="C")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no adapter: it has no {CONFIG_FILE}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(keys, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return keys


def _read_tensors(path: Path, dora: bool) -> tuple[Tensors, dict[str, mx.array]]:
    """Read the pairs of a tensor file, in the order of the layers, and DoRA's magnitudes."""
    if not path.is_file():
        hint = " (adapter_model.bin is not read: save it again with a recent PEFT)"
        old = path.with_suffix(".bin").exists()
        raise UserError(f"{path.parent} has no {TENSOR_FILE}{hint if old else ''}.")
    try:
        # safetensors checks the header, which MLX trusts; MLX reads bfloat16, which NumPy cannot.
        with safe_open(path, framework="numpy") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no intact safetensors file: {error}.") from None
    paths = set()
    for name, dtype in dtypes.items():
        known = _TENSOR_NAME.fullmatch(name)
        if not known:
            raise UserError(f"{path}: the tensor {name} is no LoRA A or B of a linear layer.")
        if not dora and known[2] == "lora_magnitude_vector":
            raise UserError(f"{path}: {name} is DoRA's, but {CONFIG_FILE} has no use_dora.")
        if dtype not in _DTYPES:
            raise UserError(f"{path}: the tensor {name} is {dtype}, not float32, float16 or bf16.")
        paths.add(known[1])
    if not paths:
        raise UserError(f"{path} holds no tensors.")
    return _pairs(path, sorted(paths, key=layer_order), dora)


def _pairs(file: Path, paths: list[str], dora: bool) -> tuple[Tensors, dict[str, mx.array]]:
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    pairs: Tensors = {}
    magnitudes: dict[str, mx.array] = {}
    for path in paths:
        names = [f"base_model.model.{path}.lora_{letter}.weight" for letter in "AB"]
        names += [_MAGNITUDE.format(path)] if dora else []
        for name in names:
            if name not in arrays:
                raise UserError(f"{file}: the tensor {name} is missing beside its other half.")
        a, b, *magnitude = (arrays[name].astype(mx.float32) for name in names)
        pairs[path] = (a, b)
        if dora:
            magnitudes[path] = magnitude[0]
    mx.eval(pairs, magnitudes)
    return pairs, magnitudes


def _check_pair(path: str, a: mx.array, b: mx.array, lora: LoraConfig, file: Path) -> None:
    """Hold the shapes of a pair against its configuration."""
    name = f"base_model.model.{path}.lora_A.weight"
    r = pattern_value(path, lora.rank_pattern, lora.r)
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != r or b.shape[1] != r:
        raise UserError(
            f"{file}: {name} {a.shape} and lora_B {b.shape} are no pair of rank {r}, "
            f"as {CONFIG_FILE} has it."
        )
    if not matches_target(path, lora):
        raise UserError(f"{file}: {name} is on a module that {CONFIG_FILE} does not target.")
