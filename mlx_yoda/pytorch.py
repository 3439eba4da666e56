"""PyTorch, which nothing here needs, and which Transformers imports where it is installed.

That takes 190 MB of memory and most of the time in which the program starts.
"""

import sys

_HIDDEN = None  # what Python takes for a module that cannot be imported


def hide_pytorch() -> None:
    """Have it look as if it were not installed, in this process, unless it is imported already."""
    sys.modules.setdefault("torch", _HIDDEN)  # type: ignore[arg-type]


def is_hidden() -> bool:
    """Whether `hide_pytorch` has hidden it."""
    return sys.modules.get("torch", sys) is _HIDDEN


def show_pytorch() -> None:
    """Let it be imported by those who ask for it."""
    if is_hidden():
        del sys.modules["torch"]
