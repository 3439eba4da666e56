"""Adapters in mlx-lm's format: `mlx_lm.generate --adapter-path` takes them as they are.

mlx-lm keeps A and B transposed, as `<path>.lora_a` `(in, r)` and `<path>.lora_b` `(r, out)`,
and DoRA's magnitude as `<path>.m` `(out,)`. Rank and scale are the same for all its layers: a
smaller rank is filled up with zeros, another scale goes into B. Our own configuration is written
beside mlx-lm's, which does not look at it, so that an adapter finds its ranks again.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import safetensors.numpy

from mlx_yoda import files
from mlx_yoda.adapters.json_object import read_object
from mlx_yoda.adapters.peft import CONFIG_FILE, Adapter
from mlx_yoda.adapters.peft_config import from_peft, to_peft
from mlx_yoda.adapters.safetensors_header import Entry, read_header, shown
from mlx_yoda.adapters.tensor_data import FLOATS, read_floats
from mlx_yoda.config.lora_names import layer_order, matches_target, pattern_value, scale_of
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

WEIGHTS_FILE = "adapters.safetensors"
_OURS = "peft_config"
_TENSOR = re.compile(r"([\w-]{1,99}(?:\.[\w-]{1,99}){0,30})\.(lora_a|lora_b|m)", re.ASCII)
_LAYER = re.compile(r".*?\.(\d+)\.(.+)")


def save_mlx_lm(directory: Path, adapter: Adapter) -> None:
    """Write an adapter for mlx-lm.

    Args:
        directory: where both files go; it is made if need be.
        adapter: what to write. Its weights keep their bits, but for B where modules have scales
            of their own (`alpha_pattern`, or ranks of their own).
    """
    paths, lora = list(adapter.tensors), adapter.lora
    rank = max(a.shape[0] for a, _ in adapter.tensors.values())
    # B cannot be brought to another scale from 0, so that is the common one only if it is all's.
    scale = next(filter(None, (scale_of(path, lora) for path in paths)), 0.0)
    tensors = {}
    for path, (a, b) in adapter.tensors.items():
        own, missing = scale_of(path, lora), rank - a.shape[0]
        b = b if own == scale else b * (own / scale)
        tensors[f"{path}.lora_a"] = _rows(mx.pad(a, [(0, missing), (0, 0)]).T)
        tensors[f"{path}.lora_b"] = _rows(mx.pad(b, [(0, 0), (0, missing)]).T)
        if path in adapter.magnitudes:
            tensors[f"{path}.m"] = _rows(adapter.magnitudes[path])
    layers = {match[1] for path in paths if (match := _LAYER.match(path))}
    config = {
        "fine_tune_type": "dora" if lora.use_dora else "lora",
        "model": adapter.base_model_name_or_path,
        "num_layers": len(layers),
        # Whole paths mean the same modules whichever layers carry LoRA.
        "lora_parameters": {
            "rank": rank, "scale": scale, "dropout": lora.lora_dropout, "keys": paths
        },
        _OURS: to_peft(lora, adapter.base_model_name_or_path or "", adapter.revision),
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    content = safetensors.numpy.save(tensors, metadata={"format": "mlx"})
    files.write_bytes(directory / WEIGHTS_FILE, content)
    files.write_json(directory / CONFIG_FILE, config)


def load_mlx_lm(directory: Path) -> Adapter:
    """Read an adapter that mlx-lm or `save_mlx_lm` wrote.

    Raises:
        UserError: a file is missing or broken, or holds something other than LoRA or DoRA of
            linear layers.
    """
    place = directory / CONFIG_FILE
    config = read_object(place)
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise UserError(
            f"{place}: fine_tune_type is {shown(str(kind))}, but only LoRA and DoRA can be used."
        )
    keys = config.get("lora_parameters")
    if not isinstance(keys, dict) or not _is_rank(keys.get("rank")) or not _is_scale(keys):
        raise UserError(f"{place}: lora_parameters must hold a rank, a scale and a dropout.")
    pairs, magnitudes = _read_weights(directory / WEIGHTS_FILE, kind, keys["rank"])
    ours = config.get(_OURS, {})
    if not isinstance(ours, dict):
        raise UserError(f"{place}: {_OURS} must hold an object.")
    if _OURS in config:
        lora = from_peft(ours, f"{place}, {_OURS}")
        if lora.use_dora != (kind == "dora"):
            raise UserError(
                f"{place}: fine_tune_type and use_dora in {_OURS} contradict each other."
            )
        pairs = _own_ranks(pairs, lora, keys, directory / WEIGHTS_FILE)
    else:
        lora = _lora_config(list(pairs), keys, use_dora=kind == "dora")
    base = config.get("model")
    base = base if isinstance(base, str) else None
    return Adapter(lora, pairs, base, ours.get("revision"), magnitudes)


def _own_ranks(
    pairs: Mapping[str, tuple[mx.array, mx.array]],
    lora: LoraConfig,
    keys: Mapping[str, Any],
    file: Path,
) -> dict[str, tuple[mx.array, mx.array]]:
    """Undo what `save_mlx_lm` does to ranks and scales."""
    found = {}
    for path, (a, b) in pairs.items():
        r, own = pattern_value(path, lora.rank_pattern, lora.r), scale_of(path, lora)
        silent = own == 0 != keys["scale"]  # its B has been multiplied by 0
        if not matches_target(path, lora) or r > a.shape[0] or (silent and mx.any(b)):
            raise UserError(f"{file}: {path} is not what {CONFIG_FILE} says in {_OURS}.")
        b = b[:, :r]
        b = b if silent or own == keys["scale"] else b * (keys["scale"] / own)
        if not mx.isfinite(b).all():
            raise UserError(f"{file}: the scales in {CONFIG_FILE} are too far apart for {path}.")
        found[path] = a[:r], b
    mx.eval(found)
    return found


def _lora_config(paths: list[str], keys: Mapping[str, Any], *, use_dora: bool) -> LoraConfig:
    """PEFT's way of saying which modules carry LoRA: names and layers, or else whole paths."""
    split = [match.groups() if (match := _LAYER.match(path)) else None for path in paths]
    targets, layers = paths, None
    if all(split):
        indices = sorted({int(part[0]) for part in split if part})
        names = {part[1].rpartition(".")[2] for part in split if part}
        if len(paths) == len(indices) * len(names):
            targets, layers = sorted(names), indices
    return LoraConfig(
        r=keys["rank"],
        lora_alpha=float(keys["scale"]) * keys["rank"],
        lora_dropout=float(keys.get("dropout", 0.0)),
        target_modules=targets,
        layers_to_transform=layers,
        use_dora=use_dora,
    )


def _read_weights(
    file: Path, kind: str, rank: int
) -> tuple[dict[str, tuple[mx.array, mx.array]], dict[str, mx.array]]:
    """The pairs in PEFT's orientation, in the order of the layers, and the magnitudes."""
    if not file.is_file():
        raise UserError(f"{file.parent} has no {file.name}.")
    try:
        with file.open("rb") as opened:
            entries = read_header(opened, str(file))
            paths = _modules(entries, kind, rank, file)

            def read(name: str) -> mx.array:
                return mx.array(read_floats(opened, name, entries[name], str(file)))

            pairs = {p: (read(f"{p}.lora_a").T, read(f"{p}.lora_b").T) for p in paths}
            return pairs, {p: read(f"{p}.m") for p in paths if kind == "dora"}
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None


def _modules(entries: Mapping[str, Entry], kind: str, rank: int, file: Path) -> list[str]:
    """The modules with LoRA, in the order of the layers, after checking all names and shapes."""
    modules: dict[str, set[str]] = {}
    for name, entry in entries.items():
        known = _TENSOR.fullmatch(name)
        if not known:
            raise UserError(f"{file}: the tensor {shown(name)} is no LoRA of a linear layer.")
        if entry.dtype not in FLOATS:
            raise UserError(
                f"{file}: the tensor {shown(name)} is {entry.dtype}, not a float of 16, 32 or 64 "
                "bits."
            )
        modules.setdefault(known[1], set()).add(known[2])
    if not modules:
        raise UserError(f"{file} holds no tensors.")
    wanted = {"lora_a", "lora_b", *(["m"] if kind == "dora" else [])}
    for path, parts in modules.items():
        if parts != wanted:
            raise UserError(f"{file}: {shown(path)} has {sorted(parts)}, not {sorted(wanted)}.")
        a, b = entries[f"{path}.lora_a"].shape, entries[f"{path}.lora_b"].shape
        if len(a) != 2 or len(b) != 2 or 0 in (*a, *b) or not a[1] == b[0] == rank:
            raise UserError(
                f"{file}: lora_a and lora_b of {shown(path)} are no pair of rank {rank} on a "
                "linear layer."
            )
        if kind == "dora" and entries[f"{path}.m"].shape != b[1:]:
            raise UserError(f"{file}: the tensor {shown(f'{path}.m')} does not fit its lora_b.")
    return sorted(modules, key=layer_order)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_scale(keys: Mapping[str, Any]) -> bool:
    scale, dropout = keys.get("scale"), keys.get("dropout", 0.0)
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in (scale, dropout)):
        return False
    return 0 <= dropout < 1 and -1e30 < keys["scale"] < 1e30  # which NaN is not


def _rows(array: mx.array) -> np.ndarray:
    """Copy to NumPy; safetensors would write a transposed view's memory as it lies."""
    return np.array(array.astype(mx.float32), order="C")
