"""Whether the training step is compiled."""

import os
import shutil
from typing import Literal, NamedTuple

import mlx.core as mx

from mlx_yoda.errors import first_line
from mlx_yoda.kernels import SWITCH, is_compiler_s


class Decision(NamedTuple):
    """Whether to compile, and what to tell the user if it is not what they asked for."""

    compiled: bool
    note: str | None


def decide(wanted: bool | Literal["auto"]) -> Decision:
    """Decide on `train.compile`.

    On a GPU the step is compiled unless that is switched off. On the CPU backend MLX compiles
    kernels with the system's g++ at run time, which costs tens of seconds for each shape and
    gains little, so there it must be asked for; without a compiler the step runs eagerly.
    """
    on_gpu = mx.default_device().type == mx.gpu
    if wanted == "auto":
        return Decision(on_gpu, None)
    if wanted and (why := os.environ.get(SWITCH)):
        return Decision(False, f"train.compile: the step runs uncompiled ({SWITCH}: {why})")
    if wanted and not on_gpu and shutil.which("g++") is None:
        return Decision(
            False, "train.compile: there is no C++ compiler (g++), so the step runs uncompiled"
        )
    return Decision(wanted, None)


def stop_compiling(error: Exception) -> str | None:
    """If MLX could not compile, as on a full disk, switch its compiler off for this process.

    Returns:
        What to tell the user, or None if the error says something else.
    """
    if not is_compiler_s(error):
        return None
    mx.disable_compile()
    return f"MLX cannot compile, so the steps run uncompiled ({first_line(error)})"
