"""A fast matrix product on Linux, where MLX's wheel links one that is some sixty times slower."""

import ctypes
import sys

_LIBRARY = "libopenblas.so.0"


def prefer_openblas() -> bool:
    """Load OpenBLAS, if it is installed, so that its symbols win over the reference BLAS's.

    It works only before the first import of mlx. Not needed on macOS.

    Returns:
        Whether it is loaded.
    """
    if sys.platform != "linux":
        return False
    try:
        ctypes.CDLL(_LIBRARY, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
