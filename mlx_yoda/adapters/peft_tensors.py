"""The tensors of adapter_model.safetensors: held against the configuration, then read."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

from mlx_yoda.adapters.safetensors_header import Entry, read_header, shown
from mlx_yoda.adapters.tensor_data import FLOATS, read_floats
from mlx_yoda.config.lora_names import layer_order, matches_target, pattern_value
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

MAGNITUDE = "base_model.model.{}.lora_magnitude_vector"  # (out,), of DoRA alone
_NAME = re.compile(
    r"base_model\.model\.([\w-]{1,99}(?:\.[\w-]{1,99}){0,30})"
    r"\.(lora_[AB]\.weight|lora_magnitude_vector)",
    re.ASCII,
)
_PATIENCE = 10.0  # seconds to find which modules are targeted; milliseconds are usual

Tensors = dict[str, tuple[mx.array, mx.array]]  # path → A (r, in), B (out, r)


def read_tensors(path: Path, lora: LoraConfig) -> tuple[Tensors, dict[str, mx.array]]:
    """Read the tensors that a configuration calls for; all names and shapes are checked first.

    Args:
        path: adapter_model.safetensors.
        lora: what adapter_config.json beside it says.

    Returns:
        pairs: module path → A `(r, in)` and B `(out, r)`, float32, in the order of the layers.
        magnitudes: module path → DoRA's m `(out,)`, float32; empty without DoRA.

    Raises:
        UserError: it is not there or broken, or a tensor is missing, does not belong there, has
            a shape or dtype that does not fit, or holds NaN or infinity.
    """
    if not path.is_file():
        pickle = (
            " (adapter_model.bin is not read, for it is a pickle, which can run any code: save it "
            "again with a recent PEFT)"
        )
        old = path.with_suffix(".bin").exists()
        raise UserError(f"{path.parent} has no {path.name}{pickle if old else ''}.")
    try:
        with path.open("rb") as file:
            entries = read_header(file, str(path))

            def read(name: str) -> mx.array:
                return mx.array(read_floats(file, name, entries[name], str(path)))

            names = _names(entries, lora, path)
            pairs = {module: (read(a), read(b)) for module, (a, b, *_) in names.items()}
            return pairs, {module: read(more[0]) for module, (_, _, *more) in names.items() if more}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _names(entries: Mapping[str, Entry], lora: LoraConfig, file: Path) -> dict[str, list[str]]:
    """Module path → the names of its A, its B and, in DoRA, its magnitude; all fit `lora`."""
    modules = set()
    for name, entry in entries.items():
        known = _NAME.fullmatch(name)
        if not known:
            raise UserError(
                f"{file}: the tensor {shown(name)} is no LoRA A or B of a linear layer."
            )
        if not lora.use_dora and known[2] == "lora_magnitude_vector":
            raise UserError(
                f"{file}: {shown(name)} is DoRA's, but adapter_config.json has no use_dora."
            )
        if entry.dtype not in FLOATS:
            raise UserError(
                f"{file}: the tensor {shown(name)} is {entry.dtype}, not float32, float16 or bf16."
            )
        modules.add(known[1])
    if not modules:
        raise UserError(f"{file} holds no tensors.")
    end = time.monotonic() + _PATIENCE
    names = {}
    for module in sorted(modules, key=layer_order):
        names[module] = _of_module(module, entries, lora, file)
        if time.monotonic() > end:
            raise UserError(f"{file.parent}: finding what its adapter targets takes too long.")
    return names


def _of_module(
    module: str, entries: Mapping[str, Entry], lora: LoraConfig, file: Path
) -> list[str]:
    """The names of a module's tensors, which must be there and fit its rank."""
    names = [f"base_model.model.{module}.lora_{letter}.weight" for letter in "AB"]
    names += [MAGNITUDE.format(module)] if lora.use_dora else []
    for name in names:
        if name not in entries:
            raise UserError(f"{file}: the tensor {shown(name)} is missing beside its other half.")
    r = pattern_value(module, lora.rank_pattern, lora.r)
    shape_a, shape_b, *magnitude = (entries[name].shape for name in names)
    matrices = len(shape_a) == len(shape_b) == 2 and 0 not in (*shape_a, *shape_b)
    if not matrices or shape_a[0] != r or shape_b[1] != r:
        raise UserError(
            f"{file}: {shown(names[0])} {shape_a} and lora_B {shape_b} are no pair of rank {r}, "
            "as adapter_config.json has it."
        )
    if magnitude and magnitude[0] != shape_b[:1]:
        raise UserError(
            f"{file}: {shown(names[2])} {magnitude[0]} is no magnitude for lora_B {shape_b}."
        )
    if not matches_target(module, lora):
        raise UserError(
            f"{file}: {shown(names[0])} is on a module that adapter_config.json does not target."
        )
    return names
