"""mlx-yoda: LoRA fine-tuning of Phi-3 on Apple Silicon, native MLX, PEFT files.

In Python it is `load`, `finetune` and `generate`, which do what the commands do; they are imported
only when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_yoda.api import finetune, generate, load

__version__ = "0.1.0"
__all__ = ["__version__", "finetune", "generate", "load"]


def __getattr__(name: str) -> Any:
    """Import the interface, which is in `mlx_yoda.api`, when it is first used."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("mlx_yoda.api"), name)


def __dir__() -> list[str]:
    """What there is, for completion."""
    return sorted({*globals(), *__all__})
