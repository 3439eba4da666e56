"""How much memory a process holds, as the system counts it."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Forget the peak so far, where the system can: on Linux."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak() -> int:
    """Bytes resident at most, since the last reset on Linux and since the start elsewhere."""
    if _STATUS.exists():
        return _kilobytes("VmHWM") * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def current() -> int:
    """Bytes resident now; where the system does not tell, the peak."""
    return _kilobytes("VmRSS") * 1024 if _STATUS.exists() else peak()


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise KeyError(name)
