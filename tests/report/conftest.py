"""Events to report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_yoda.config.parse import to_yaml
from mlx_yoda.config.schema import Config, LoraConfig
from mlx_yoda.report.events import (
    Evaluated,
    Finished,
    Generated,
    Noted,
    Sample,
    Sampled,
    Started,
    Stepped,
)
from mlx_yoda.report.jsonl import JsonLines

RANK_4 = Config(lora=LoraConfig(r=4))


@pytest.fixture
def stepped() -> Callable[..., Stepped]:
    """Makes a step of a run of 40, logged or not."""

    def make(step: int, logged: bool = True) -> Stepped:
        return Stepped(
            step=step,
            total_steps=40,
            epoch=step / 10,
            loss=1.25,
            learning_rate=3e-4,
            grad_norm=0.5,
            input_tokens=100 * step,
            supervised_tokens=50 * step,
            input_tokens_per_second=1234.5,
            supervised_tokens_per_second=600.0,
            peak_memory=2_500_000_000,
            seconds=0.1,
            logged=logged,
        )

    return make


@pytest.fixture
def make_run(tmp_path: Path, stepped: Callable[..., Stepped]) -> Callable[..., Path]:
    """Writes the folder of a run of 40 steps."""

    def make(name: str, config: Config = RANK_4, said: str = "Old, you are.") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(config))
        tell = JsonLines(folder / "metrics.jsonl")

        def sample(answer: str) -> Sample:
            return Sample("You are old.", "Old, you are.", answer)

        tell(
            Started(
                **{"total_steps": 40, "epochs": 4.0, "rows_per_step": 8, "micro_batch": 8},
                **{"trainable_parameters": 9000, "total_parameters": 90_000, "train_rows": 80},
                **{"validation_rows": 8, "output_dir": str(folder), "base_model": "demo"},
            )
        )
        tell(Noted("3 of 80 training rows were cut"))
        tell(Generated("before", 0, 0.0, 60.0, 8, (sample("You are old."),)))
        for step in (10, 20, 30, 40):
            tell(replace(stepped(step), loss=2 - (step - 10) / 30))
            if step % 20 == 0:
                tell(Evaluated(step, step / 10, 1.5 - step / 100, 3.0, 100))
                tell(Sampled(step, sample(said if step == 40 else "Are old, you.")))
        tell(Generated("after", 40, 0.5, 90.0, 8, (sample(said),)))
        tell(Finished(40, 1.5, 12.0, 4000, 2000, str(folder)))
        return folder

    return make
