"""What the measurements were made on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from mlx_yoda.cli.blas import prefer_openblas

THERMAL = (
    "Thermal state is not controlled: let the machine cool down and plug it in before long runs; "
    "contenders take turns within a round so that they share what drift there is."
)


def machine() -> dict[str, str]:
    """Chip, memory, system, cores, and which matrix product MLX uses on Linux."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "chip": _chip(),
        "memory": f"{size / 2**30:.0f} GiB",
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "thermal": THERMAL,
    }
    if sys.platform == "linux":
        found["OpenBLAS for MLX"] = "yes" if prefer_openblas() else "no"
    return found


def _chip() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
