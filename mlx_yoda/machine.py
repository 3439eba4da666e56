"""The machine that a run is on, and the versions of what runs there."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from mlx_yoda import __version__

Facts = dict[str, str | int | bool | None]

_PACKAGES = ("mlx", "mlx-lm", "transformers", "datasets", "huggingface-hub", "safetensors")


def machine() -> Facts:
    """Chip, memory in bytes, operating system, and the device that MLX computes on."""
    import mlx.core as mx

    device = mx.default_device()
    described = mx.device_info()
    facts: Facts = {
        "chip": described.get("device_name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": described.get("memory_size") or _physical_memory(),
        "os": _system(),
        "device": "GPU" if device.type == mx.gpu else "CPU",
        "metal": mx.metal.is_available(),
    }
    if "max_recommended_working_set_size" in described:
        facts["gpu_memory_bytes"] = described["max_recommended_working_set_size"]
    return facts


def versions() -> dict[str, str | None]:
    """Of Python, this program and the packages it stands on; None for one that is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "mlx-yoda": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system() -> str:
    release = platform.mac_ver()[0]
    return f"macOS {release}" if release else f"{platform.system()} {platform.release()}"
