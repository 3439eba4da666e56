"""The header of a safetensors file, checked before a single tensor is read.

Adapters come from strangers, so nothing in the header is believed: its length, its JSON, every
shape, dtype and offset are held against each other and against the file's size. The format and
the rules are those of the safetensors library (github.com/huggingface/safetensors, `Metadata::
validate`), which accepts whatever is accepted here; this reader also names the tensor that is
wrong, and takes no header larger than an adapter's can be.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from mlx_yoda import strict_json
from mlx_yoda.errors import UserError

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
MAX_HEADER = 16 << 20  # bytes; a LoRA of all the 61,000 matrices of a mixture of experts fits
MAX_FILE = 16 << 30  # bytes; rank 256 on Phi-3-medium takes 4 GB
_LONGEST_NAME = 80  # characters of a name that a message shows
_METADATA = "__metadata__"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        dtype: the format's name for it, such as `F32` or `BF16`.
        shape: its dimensions.
        start: offset of its first byte in the file.
        size: how many bytes it has.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_header(file: BinaryIO, place: str) -> dict[str, Entry]:
    """Read and check the header of an open file.

    Time and memory are bounded by `MAX_HEADER`, whatever the file says.

    Args:
        file: opened for reading bytes, at its start.
        place: what to call it in messages.

    Returns:
        Name → entry, in the order of the bytes; the tensors fill the file without gap or overlap.

    Raises:
        UserError: the file is cut short or no safetensors file, or its header contradicts itself.
    """
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    if total > MAX_FILE:
        raise UserError(f"{place} has {total:,} bytes, more than an adapter can need.")
    length = int.from_bytes(file.read(8), "little")
    if total < 8 or length > total - 8:
        raise UserError(f"{place} is no intact safetensors file: it ends within its header.")
    if length > MAX_HEADER:
        raise UserError(
            f"{place} is no adapter: its header has {length:,} bytes, more than {MAX_HEADER:,}."
        )
    keys = _parse(file.read(length), place)
    metadata = keys.pop(_METADATA, None)
    metadata = {} if metadata is None else metadata  # MLX writes null where it has none
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise UserError(f"{place}: {_METADATA} must hold text only.")
    entries = {name: _entry(name, value, 8 + length, place) for name, value in keys.items()}
    return _without_gaps(entries, 8 + length, total, place)


def shown(name: str) -> str:
    """A tensor's name as a message quotes it: cut short, control characters spelt out."""
    text = name if name.isprintable() and name else repr(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _parse(header: bytes, place: str) -> dict[str, Any]:
    try:
        keys = strict_json.loads(header.decode())
    except strict_json.DuplicateKeyError as error:
        raise UserError(f"{place}: the header has {shown(error.key)} twice.") from None
    except (ValueError, RecursionError):  # no UTF-8, no JSON, an endless number, endless nesting
        raise UserError(f"{place} is no intact safetensors file: its header is no JSON.") from None
    if not isinstance(keys, dict):
        raise UserError(f"{place} is no intact safetensors file: its header is no JSON object.")
    return keys


def _entry(name: str, value: object, data: int, place: str) -> Entry:
    """One tensor's entry; `data` is where the tensors begin in the file."""
    where = f"{place}: the tensor {shown(name)}"
    if not isinstance(value, Mapping) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise UserError(f"{where} must have a dtype, a shape and data_offsets, and nothing else.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise UserError(f"{where} has a dtype that is not known here: {shown(str(dtype)[:99])}.")
    if not _sizes(shape) or len(shape) > 8:
        raise UserError(f"{where} has a shape that is no list of sizes.")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UserError(f"{where} has data_offsets that are no beginning and end.")
    size = DTYPE_BYTES[dtype]
    for length in shape:
        size *= length
    if size != offsets[1] - offsets[0]:
        raise UserError(
            f"{where} says that it has {offsets[1] - offsets[0]:,} bytes, but its shape and dtype "
            f"need {size:,}."
        )
    return Entry(dtype, tuple(shape), data + offsets[0], size)


def _sizes(value: object) -> bool:
    """Whether it is a list of whole numbers that a file on this machine can need."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MAX_FILE for n in value)


def _without_gaps(
    entries: dict[str, Entry], start: int, total: int, place: str
) -> dict[str, Entry]:
    """The entries in the order of their bytes, if these fill the file from `start` to `total`."""
    ordered = sorted(entries.items(), key=lambda item: (item[1].start, item[1].size))
    for name, entry in ordered:
        if entry.start != start:
            what = "overlaps another" if entry.start < start else "leaves a gap before it"
            raise UserError(f"{place}: the tensor {shown(name)} {what}.")
        start += entry.size
        if start > total:
            raise UserError(f"{place} is no intact safetensors file: it ends within {shown(name)}.")
    if start < total:
        raise UserError(
            f"{place} is no intact safetensors file: {total - start:,} bytes at its end belong "
            "to no tensor."
        )
    return dict(ordered)
