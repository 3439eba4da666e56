"""What MLX can pack weights into: the values of `model.quantization` that go together."""

from typing import NamedTuple

from mlx_yoda.config.schema import Quantization


class Packing(NamedTuple):
    """How MLX packed a weight: `bits` each, with a scale for every `group_size`."""

    group_size: int
    bits: int
    mode: str


class _Mode(NamedTuple):
    """The possible values of a mode, its own ones first."""

    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]


# Those that mx.quantize has kernels for; a single bit says too little of a weight to be of use.
_MODES = {
    "affine": _Mode((4, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": _Mode((4,), (32,)),  # of the Open Compute Project's microscaling formats
    "mxfp8": _Mode((8,), (32,)),
    "nvfp4": _Mode((4,), (16,)),
}


def packing(wanted: Quantization) -> Packing:
    """The packing that is meant, with the mode's own values where none are given."""
    mode = _MODES[wanted.mode]
    return Packing(
        mode.group_sizes[0] if wanted.group_size is None else wanted.group_size,
        mode.bits[0] if wanted.bits is None else wanted.bits,
        wanted.mode,
    )


def trouble(wanted: Quantization) -> str | None:
    """What the mode needs that was not given, or None: "mode mxfp4 needs group_size 32, not 64"."""
    group_size, bits, mode = packing(wanted)
    possible = _MODES[mode]
    for name, value, values in (
        ("bits", bits, possible.bits),
        ("group_size", group_size, possible.group_sizes),
    ):
        if value not in values:
            return f"mode {mode} needs {name} {_either(sorted(values))}, not {value}"
    return None


def short(wanted: Quantization) -> str:
    """The packing as an option has it: `4`, `mxfp4` or `{bits: 4, group_size: 32}`."""
    given = {name: value for name, value in vars(wanted).items() if value is not None}
    if wanted.mode == "affine" and len(given) > 1:
        del given["mode"]
    if given.keys() in ({"bits"}, {"mode"}):
        return str(*given.values())
    return f"{{{', '.join(f'{name}: {value}' for name, value in given.items())}}}"


def group_sizes(mode: str) -> tuple[int, ...]:
    """The group sizes that a mode has, smallest first."""
    return tuple(sorted(_MODES[mode].group_sizes))


def _either(values: list[int]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last
