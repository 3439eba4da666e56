"""Models of every family on disk."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a random model of that family, with the demo's tokenizer; do not change it."""
    import torch
    from transformers import AutoModelForCausalLM

    from mlx_yoda.model.load import resolve
    from tests.model.families import FAMILIES

    @cache
    def folder(name: str) -> Path:
        path: Path = tmp_path_factory.mktemp("family") / "model"
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(FAMILIES[name], dtype=torch.float32)
        model.save_pretrained(path)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(Path(resolve("demo")) / file, path / file)
        return path

    return folder
