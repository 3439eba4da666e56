"""Data that is streamed and whose tokens are on disk: the same run, stopped and gone on from."""

import json
import random
from pathlib import Path

import datasets
import pytest

from mlx_yoda.config.parse import load_config
from mlx_yoda.data import formats, streams, tokenised
from mlx_yoda.errors import UserError
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.interruption import Interrupted

WEIGHTS = "adapter_model.safetensors"
DEMO = Path(formats.__file__).parents[1] / "demo" / "data" / "train.jsonl"


@pytest.fixture
def streaming(monkeypatch, tmp_path):
    """Everything is large, and there is an empty cache."""
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))


def run(config, **how) -> list[str]:
    """Train; what was noted."""
    events: list = []
    finetune(config, reporter=events.append, **how)
    return [event.message for event in events if event.name == "note"]


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["none", "best_fit", "concat"])
def test_a_streamed_run_is_the_run_in_memory_to_the_bit(configure, tmp_path, monkeypatch, packing):
    settings = (f"data.packing={packing}", "data.max_length=40", "train.num_train_epochs=2")
    settings += ("train.max_steps=-1", "train.save_strategy=no")
    memory = run(configure(tmp_path / "memory", *settings))
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    notes = run(configure(tmp_path / "streamed", *settings))
    assert (tmp_path / "streamed" / WEIGHTS).read_bytes() == (
        tmp_path / "memory" / WEIGHTS
    ).read_bytes()
    assert [note for note in notes if "kept for other runs" not in note] == memory
    assert [note.split(" are kept")[0] for note in notes if note not in memory] == [
        "the tokens of 19 training rows",
        "the tokens of 5 validation rows",
    ]
    assert str(tmp_path / "cache" / "tokens") in notes[-1]
    assert notes[-1].endswith(" MB), and made anew if you delete them")


@pytest.mark.slow
def test_a_resumed_run_reads_nothing_but_its_cached_tokens(
    configure, tmp_path, monkeypatch, streaming
):
    run(configure(tmp_path / "whole"))

    def stop(event):
        if event.name == "step" and event.step == 3:
            raise Interrupted(2, 3)

    output = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        finetune(configure(output), reporter=stop)
    assert not (output / WEIGHTS).exists()
    monkeypatch.setattr(tokenised, "encode_each", None)
    monkeypatch.setattr(formats, "_lines", None)
    run(configure(output), resume=True)
    assert (output / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_few_of_many_held_out_rows_are_asked_and_it_is_said(
    configure, tmp_path, monkeypatch, streaming
):
    monkeypatch.setattr(tokenised, "_MOST_QUESTIONS", 2)
    events: list = []
    settings = ("train.predict_with_generate=true", "train.generation_max_new_tokens=3")
    finetune(configure(tmp_path / "run", *settings), reporter=events.append)
    assert [event.rows for event in events if event.name == "generate"] == [2, 2]
    notes = [event.message for event in events if event.name == "note"]
    assert "where answers are generated, 2 of the 5 validation rows are asked" in notes


@pytest.mark.slow
def test_going_on_from_memory_with_streams_and_back(configure, tmp_path, monkeypatch):
    """Where the tokens are is no part of a run."""
    run(configure(tmp_path / "whole"))
    output = tmp_path / "run"
    run(configure(output, "train.max_steps=6"))
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    run(configure(output), resume=output / "checkpoint-2")
    assert (output / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    monkeypatch.undo()
    run(configure(output), resume=output / "checkpoint-4")
    assert (output / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_damage_in_the_middle_of_a_run_is_told_and_healed(configure, tmp_path, streaming):
    run(configure(tmp_path / "whole"))
    output = tmp_path / "run"
    (training,) = (
        path.parent
        for path in (tmp_path / "cache" / "tokens").glob("*/store.json")
        if json.loads(path.read_text())["kept"]["rows"] == 19
    )

    def damage(event):
        if event.name == "step" and event.step == 2:
            size = (training / "tokens.bin").stat().st_size
            with (training / "tokens.bin").open("r+b") as file:
                file.write(bytes(size))

    with pytest.raises(UserError, match=r"cached tokens .* are damaged .*--resume"):
        finetune(configure(output), reporter=damage)
    run(configure(output), resume=True)
    assert (output / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_thirty_thousand_rows_of_an_arrow_folder(tmp_path, streaming, monkeypatch):
    """The small version of `benchmarks.large_data`."""
    sentences = [json.loads(line) for line in DEMO.read_text().splitlines()]
    rows = random.Random(0).choices(sentences, k=30_000)
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "rows", num_shards=4)

    def configured(output: str, *overrides: str):
        options = {
            "model.model_name_or_path": "demo",
            "data.dataset_name": str(tmp_path / "rows"),
            "data.validation_split": 0.001,
            "train.output_dir": str(tmp_path / output),
            "train.save_strategy": "steps",
            "train.save_steps": 10,
        }
        return load_config(None, ["train.max_steps=20", *overrides], options)

    notes = run(configured("whole"))
    assert any("the tokens of 29,970 training rows are kept" in note for note in notes)
    monkeypatch.setattr(tokenised, "encode_each", None)
    run(configured("again"), resume=tmp_path / "whole" / "checkpoint-10")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (
        tmp_path / "whole" / WEIGHTS
    ).read_bytes()
