"""Small runs whose folders are looked at, and broken."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_yoda.config import Config
from mlx_yoda.config.parse import load_config

Configure = Callable[..., Config]


@pytest.fixture(scope="session")
def configure(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """Makes the configuration of a run of 6 steps with dropout and a checkpoint after each."""
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [
        {"prompt": n * (1 + i % 5), "completion": f"{n} it is"} for i, n in enumerate("abcdef")
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines * 4))

    def configured(output: Path, *overrides: str, base: Path = base_folder) -> Config:
        options = {
            "model.model_name_or_path": str(base),
            "data.dataset_name": str(rows),
            "train.output_dir": str(output),
        }
        small = [
            "lora.lora_dropout=0.2",
            "data.validation_split=0.2",
            "train.max_steps=6",
            "train.learning_rate=1e-2",
            "train.logging_steps=2",
            "train.save_strategy=steps",
            "train.save_steps=1",
            "train.save_total_limit=null",
        ]
        return load_config(None, [*small, *overrides], options)

    return configured
