"""Processes of our own: the same interpreter and libraries, none of the current folder."""

import os
import sys

from mlx_yoda.pytorch import hide_pytorch, is_hidden


def python_command(program: str, *args: object) -> list[str]:
    """The command that runs a program in this interpreter; PyTorch is hidden there if it is here.

    Args:
        program: Python code.
        args: what it finds in `sys.argv[1:]`.
    """
    if is_hidden():
        program = f"from {hide_pytorch.__module__} import hide_pytorch; hide_pytorch(); {program}"
    # -P: what is in the current folder is no library, whatever its name
    return [sys.executable, "-P", "-c", program, *map(str, args)]


def python_environment(**more: str) -> dict[str, str]:
    """The environment in which it imports what this process can, with some variables more."""
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    return {**os.environ, "PYTHONPATH": path, **more}
