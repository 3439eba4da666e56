"""The configurations that come with the package, by name: `demo`, `phi3-mini`, …"""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "configs"


def shipped() -> list[str]:
    """Names of the package's configurations, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: Path) -> Path:
    """The file that `--config` means: the one that is here, else the package's of that name.

    Args:
        name: a path, or the name of one of the package's, with or without `.yaml`. A folder of
            that name, such as a run's, hides nothing.
    """
    if os.path.exists(name) and not os.path.isdir(name):
        return name
    stem = str(name).removesuffix(".yaml")
    return FOLDER / f"{stem}.yaml" if stem in shipped() else name
