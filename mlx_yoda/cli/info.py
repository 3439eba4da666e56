"""`mlx-yoda info`."""

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from mlx_yoda import __version__
from mlx_yoda.cli.blas import prefer_openblas
from mlx_yoda.cli.command import Command, say

_PACKAGES = ("mlx", "mlx-lm", "transformers", "datasets", "huggingface-hub", "safetensors")
_COMPILERS = ("g++", "c++", "clang++")  # what MLX's CPU backend may compile kernels with
_EXAMPLES = """\
mlx-yoda info
mlx-yoda info --json
"""


@click.command(
    "info", cls=Command, epilog=_EXAMPLES, short_help="Show the machine and the versions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """Show the machine and the versions: what a bug report needs."""
    facts = {**_machine(), **_versions()}
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        say(f"{name.removesuffix('_bytes').replace('_', ' '):{width}}{_words(value)}")


def _machine() -> dict[str, str | int | bool | None]:
    import mlx.core as mx

    device = mx.default_device()
    described = mx.device_info()
    facts = {
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
    if sys.platform == "linux":
        facts["compiler"] = next(filter(None, map(shutil.which, _COMPILERS)), None)
        facts["openblas"] = prefer_openblas()
    return facts


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system() -> str:
    release = platform.mac_ver()[0]
    return f"macOS {release}" if release else f"{platform.system()} {platform.release()}"


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "mlx-yoda": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _words(value: str | int | bool | None) -> str:
    match value:
        case None:
            return "none"
        case True | False:
            return "yes" if value else "no"
        case int() if value > 1 << 20:  # of bytes, for nothing else is that many
            return f"{value / 1e9:.1f} GB"
        case _:
            return str(value)
