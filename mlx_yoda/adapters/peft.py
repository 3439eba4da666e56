"""Write and read adapters as PEFT does: adapter_config.json and adapter_model.safetensors.

In PEFT's file the module at `<path>` has the tensors `base_model.model.<path>.lora_A.weight`
`(r, in)` and `base_model.model.<path>.lora_B.weight` `(out, r)`. Our layers have the same
orientation, so both directions only rename (peft/utils/save_and_load.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
import safetensors.numpy

from mlx_yoda import files
from mlx_yoda.adapters.json_object import read_object
from mlx_yoda.adapters.peft_config import from_peft, to_peft
from mlx_yoda.adapters.peft_tensors import MAGNITUDE, Tensors, read_tensors
from mlx_yoda.config.schema import LoraConfig

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter read from disk.

    Attributes:
        lora: how its layers are made; the initialisation has no more meaning.
        tensors: module path → A `(r, in)` and B `(out, r)`, float32.
        base_model_name_or_path: the base it was trained on, if the file says so.
        revision: the base's revision on the Hub, if the file says so.
        magnitudes: module path → DoRA's m `(out,)`, float32; empty without DoRA.
        base_weights: name → tensor, float32, of the base's own weights, which PEFT saves beside
            an adapted embedding or head. They must be those of the base.
    """

    lora: LoraConfig
    tensors: Tensors
    base_model_name_or_path: str | None
    revision: str | None = None
    magnitudes: dict[str, mx.array] = field(default_factory=dict)
    base_weights: dict[str, mx.array] = field(default_factory=dict)

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
        named[MAGNITUDE.format(path)] = _row_major(magnitude)
    content = safetensors.numpy.save(named, metadata={"format": "pt"})
    files.write_bytes(directory / TENSOR_FILE, content)
    files.write_json(directory / CONFIG_FILE, to_peft(lora, base_model_name_or_path, revision))


def load_adapter(directory: Path) -> Adapter:
    """Read an adapter that PEFT or this program saved.

    The folder may be a stranger's. Only safetensors are read, never pickles, which run code; the
    configuration is read up to a size; every tensor's name, shape and dtype is checked before its
    bytes are read; and memory stays within about twice the file's size.

    Args:
        directory: the folder with adapter_config.json and adapter_model.safetensors.

    Raises:
        UserError: a file is missing or broken, the adapter needs something we do not do, its
            tensors do not fit its configuration, or a number in them is NaN or infinite.
    """
    config_file = directory / CONFIG_FILE
    keys = read_object(config_file)
    stored = read_tensors(directory / TENSOR_FILE, keys, from_peft(keys, str(config_file)))
    base, revision = keys.get("base_model_name_or_path"), keys.get("revision")
    return Adapter(
        stored.lora, stored.pairs, base, revision, stored.magnitudes, stored.base_weights
    )


def _row_major(array: mx.array) -> np.ndarray:
    """Copy to NumPy; safetensors would write a transposed view's memory as it lies."""
    return np.array(array.astype(mx.float32), order="C")
