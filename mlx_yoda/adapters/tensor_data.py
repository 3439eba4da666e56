"""The numbers of one tensor, from the bytes where a checked header says that they lie."""

from typing import BinaryIO

import numpy as np

from mlx_yoda.adapters.safetensors_header import Entry, shown
from mlx_yoda.errors import UserError

FLOATS = ("F64", "F32", "F16", "BF16")


def read_floats(file: BinaryIO, name: str, entry: Entry, place: str) -> np.ndarray:
    """Read a tensor of one of the dtypes `FLOATS`.

    Args:
        file: the open safetensors file.
        name: the tensor's name, for messages.
        entry: where it lies, from `read_header` of this file.
        place: what to call the file in messages.

    Returns:
        Float32, of the entry's shape; half precision is widened exactly, float64 is rounded.

    Raises:
        UserError: the file has been cut since its header was read, or a number is NaN or too large
            for float32.
    """
    file.seek(entry.start)
    data = file.read(entry.size)
    if len(data) != entry.size:
        raise UserError(f"{place} ends within {shown(name)}: it is being changed.")
    array = _as_float32(data, entry.dtype).reshape(entry.shape)
    finite = np.isfinite(array)
    if not finite.all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise UserError(
            f"{place}: the tensor {shown(name)} holds {array[at]} at {list(at)}, so whatever the "
            "model says with it would be noise."
        )
    return array


def _as_float32(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # NumPy has none: it is the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        return np.frombuffer(data, kind).astype(np.float32)
