"""A small finished run on the demo's base, and the Hub that stands in for the real one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from mlx_yoda.config.parse import load_config
from mlx_yoda.recipes.finetune import finetune
from tests.hub.handler import TOKEN, Hub
from tests.hub.server import running


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 6 steps; it is nobody's to change."""
    folder = tmp_path_factory.mktemp("hub") / "yoda"
    options = {
        "model.model_name_or_path": "demo",
        "data.dataset_name": "demo",
        "data.prompt_column": "sentence",
        "data.completion_column": "translation",
        "train.output_dir": str(folder),
    }
    small = [
        "train.max_steps=6",
        "train.per_device_train_batch_size=16",
        "train.learning_rate=1e-2",
        "train.logging_steps=2",
        "train.eval_strategy=steps",
        "train.eval_steps=3",
        "train.save_strategy=steps",
        "train.save_steps=3",
        "train.predict_with_generate=true",
        "train.generation_max_new_tokens=24",
    ]
    finetune(load_config(None, small, options), reporter=lambda event: None)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run to do with what one likes."""
    return Path(shutil.copytree(finished, tmp_path / "yoda"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub that this process's client may ask, as the owner of `me`."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub
