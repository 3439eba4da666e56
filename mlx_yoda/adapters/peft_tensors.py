"""The tensors of adapter_model.safetensors: held against the configuration, then read."""

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_yoda.adapters.peft_config import is_all_linear, layers_patterns
from mlx_yoda.adapters.safetensors_header import Entry, read_header, shown
from mlx_yoda.adapters.tensor_data import FLOATS, read_floats
from mlx_yoda.config.lora_names import layer_order, matches_target, pattern_value
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

MAGNITUDE = "base_model.model.{}.lora_magnitude_vector"  # (out,), of DoRA alone
_MODULE = r"base_model\.model\.([\w-]{1,99}(?:\.[\w-]{1,99}){0,30})"
_LORA = re.compile(rf"{_MODULE}\.(lora_[AB]\.weight|lora_magnitude_vector(?:\.weight)?)", re.ASCII)
# How VeLoRA compresses activations for the backward pass; what is computed does not need it.
_IDLE = re.compile(rf"{_MODULE}\.lora_velora_embed", re.ASCII)
# The base's own, which PEFT saves beside an adapted or resized embedding or head.
_BASE = re.compile(rf"{_MODULE}\.(weight|bias)", re.ASCII)
_PATIENCE = 10.0  # seconds of processor time to find what is targeted; milliseconds are usual

Tensors = dict[str, tuple[mx.array, mx.array]]  # path → A (r, in), B (out, r)


class Stored(NamedTuple):
    """What adapter_model.safetensors holds.

    Attributes:
        lora: the configuration; where only the tensors tell what it targets ("all-linear",
            `layers_pattern`), `target_modules` is the list of their modules, as in PEFT.
        pairs: module path → A `(r, in)` and B `(out, r)`, float32, in the order of the layers.
        magnitudes: module path → DoRA's m `(out,)`, float32; empty without DoRA.
        base_weights: name → tensor, float32, of the base's own weights that lie beside them.
    """

    lora: LoraConfig
    pairs: Tensors
    magnitudes: dict[str, mx.array]
    base_weights: dict[str, mx.array]


def read_tensors(path: Path, keys: Mapping[str, Any], lora: LoraConfig) -> Stored:
    """Read the tensors that a configuration calls for; all names and shapes are checked first.

    Args:
        path: adapter_model.safetensors.
        keys: the object in adapter_config.json beside it.
        lora: what `from_peft` made of that.

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

            modules, base = _sorted_out(entries, lora, path)
            lora, names = _targeted(modules, entries, keys, lora, path)
            return Stored(
                lora,
                {module: (read(a), read(b)) for module, (a, b, *_) in names.items()},
                {module: read(more[0]) for module, (_, _, *more) in names.items() if more},
                {own: read(name) for own, name in base.items()},
            )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _sorted_out(
    entries: Mapping[str, Entry], lora: LoraConfig, file: Path
) -> tuple[list[str], dict[str, str]]:
    """The modules with LoRA, in the order of the layers, and name → stored name of the base's."""
    modules: set[str] = set()
    base: dict[str, str] = {}
    for name, entry in entries.items():
        if known := _LORA.fullmatch(name):
            modules.add(known[1])
            if not lora.use_dora and known[2].startswith("lora_magnitude_vector"):
                raise UserError(
                    f"{file}: {shown(name)} is DoRA's, but adapter_config.json has no use_dora."
                )
        elif _IDLE.fullmatch(name):
            continue
        elif (own := _BASE.fullmatch(name)) and ".lora_" not in name:
            called = f"{own[1].removesuffix('.base_layer')}.{own[2]}"
            if called in base:
                raise UserError(f"{file}: the base's {shown(called)} is there twice.")
            base[called] = name
        else:
            raise UserError(
                f"{file}: the tensor {shown(name)} is no LoRA A or B of a linear layer."
            )
        if entry.dtype not in FLOATS:
            raise UserError(
                f"{file}: the tensor {shown(name)} is {entry.dtype}, not a float of 16, 32 or 64 "
                "bits."
            )
    if not modules:
        raise UserError(f"{file} holds no LoRA tensors.")
    return sorted(modules, key=layer_order), base


def _targeted(
    modules: list[str],
    entries: Mapping[str, Entry],
    keys: Mapping[str, Any],
    lora: LoraConfig,
    file: Path,
) -> tuple[LoraConfig, dict[str, list[str]]]:
    """The configuration with its targets resolved, and module path → the names of its tensors."""
    patterns, names = layers_patterns(keys), {}
    if is_all_linear(lora.target_modules):
        lora = replace(lora, target_modules=modules)
    end = time.process_time() + _PATIENCE
    for module in modules:
        names[module] = _of_module(module, entries, lora, file)
        if not matches_target(module, lora, patterns):
            raise UserError(
                f"{file}: {shown(names[module][0])} is on a module that adapter_config.json does "
                "not target."
            )
        if time.process_time() > end:
            raise UserError(f"{file.parent}: finding what its adapter targets takes too long.")
    if patterns:
        lora = replace(lora, target_modules=modules, layers_to_transform=None)
    return lora, names


def _of_module(
    module: str, entries: Mapping[str, Entry], lora: LoraConfig, file: Path
) -> list[str]:
    """The names of a module's A, B and, in DoRA, magnitude: all there, and of its rank."""
    names = [f"base_model.model.{module}.lora_{letter}.weight" for letter in "AB"]
    magnitudes = [MAGNITUDE.format(module), MAGNITUDE.format(module) + ".weight"]
    if sum(name in entries for name in magnitudes) == 2:
        raise UserError(f"{file}: {shown(magnitudes[0])} is there with and without .weight.")
    if lora.use_dora:
        names += [name for name in magnitudes if name in entries] or magnitudes[:1]
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
    return names
