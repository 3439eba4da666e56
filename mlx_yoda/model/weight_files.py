"""Whether a model folder's weight files are whole and in a form that is read here."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mlx_yoda.errors import UserError
from mlx_yoda.model.config_json import check_not_pointer, read_json

INDEX_FILE = "model.safetensors.index.json"
_POINTER_BYTES = 1024  # more than a Git LFS pointer has
# Containers that mlx-lm unpacks into MLX's own formats, by their quant_method.
_READ_BY_MLX_LM = ("mxfp4", "mxfp8", "modelopt", "bitnet")
_PACKINGS = ("nvfp4-pack-quantized", "mxfp4-pack-quantized", "pack-quantized")


def check_weight_files(folder: Path) -> None:
    """Refuse a folder whose weights cannot be read, before anything is built for them.

    Raises:
        UserError: they are missing, in part or whole, lie elsewhere, or are Git LFS pointers.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UserError(
            f"{folder} has no weights: no model*.safetensors is there "
            "(PyTorch's .bin files are not read)."
        )
    for name in sorted(_named_by_index(folder)):
        if _elsewhere(name):
            raise UserError(
                f"{folder / INDEX_FILE} names {name!r}, a file outside the folder, which is not "
                "read: download the model again."
            )
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}, which its index names: fetch it again.")
    for file in files:
        check_pointer(file)


def check_pointer(file: Path) -> None:
    """Refuse a file that is only a Git LFS pointer.

    Raises:
        UserError: it is one.
    """
    if file.is_file() and file.stat().st_size < _POINTER_BYTES:
        check_not_pointer(file, file.read_bytes().decode("utf-8", "replace"))


def check_quantization(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse weights that another library has quantised and that are not read here.

    MLX's own (`quantization`) are read, and what mlx-lm unpacks.

    Raises:
        UserError: they are such.
    """
    theirs = config.get("quantization_config")
    theirs = theirs or (config.get("text_config") or {}).get("quantization_config")
    if not theirs or config.get("quantization"):
        return
    method = theirs.get("quant_method")
    if method is None and theirs.get("bits") and theirs.get("group_size"):
        return  # as mlx-lm wrote it once
    if _is_read(method, theirs):
        return
    name = f"{method} ({theirs['format']})" if theirs.get("format") else str(method)
    raise UserError(
        f"the weights in {folder} are quantised by {name}, which is not read here: take the "
        "original, unquantised model and let model.quantization (--quantize 4) pack it."
    )


def _is_read(method: object, theirs: Mapping[str, Any]) -> bool:
    if method == "compressed-tensors":
        return theirs.get("format") in _PACKINGS
    if method == "fp8":
        return theirs.get("scale_fmt") == "ue8m0"
    if method == "awq":
        return theirs.get("bits") == 4 and theirs.get("version", "gemm") == "gemm"
    return method in _READ_BY_MLX_LM


def explain_names(folder: Path, error: ValueError) -> UserError | None:
    """What MLX says of tensors that model and files do not share, in words that lead on.

    Its message is a line with the number, then the names; None if the error is another.
    """
    first, _, rest = str(error).partition("\n")
    names = [name.strip(" ,.") for name in rest.splitlines()]
    what = {"Missing": "lack", "Received": "have"}.get(first.partition(" ")[0])
    if what is None or not names:
        return None
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    if what == "have":
        return UserError(
            f"the weights in {folder} have {count} that the model of its config.json does not "
            f"({shown}): config.json is another model's, or another library has quantised them."
        )
    whole = "" if (folder / INDEX_FILE).is_file() else f"; there is no {INDEX_FILE} to name it"
    return UserError(
        f"the weights in {folder} lack {count} of the model of its config.json ({shown}): a file "
        f"is missing{whole}, or config.json is another model's; download the model again."
    )


def _named_by_index(folder: Path) -> set[str]:
    index = folder / INDEX_FILE
    if not index.exists():
        return set()
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index} has no weight_map, so it names no weights: fetch it again.")
    return {str(name) for name in weight_map.values()}


def _elsewhere(name: str) -> bool:
    """Whether a file's name leads out of its folder, on any system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    rooted = posix.is_absolute() or windows.is_absolute() or bool(windows.drive or windows.root)
    return rooted or ".." in (*posix.parts, *windows.parts)
