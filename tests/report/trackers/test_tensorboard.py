"""TensorBoard's own reader finds the numbers."""

import pytest

from mlx_yoda.config.schema import Config, TrainConfig

pytest.importorskip("tensorboard")


def test_its_reader_finds_the_numbers(events, tmp_path, offline, monkeypatch):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    from mlx_yoda.report.trackers.tensorboard import open_tracker

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    tell = open_tracker(Config(train=TrainConfig(output_dir=str(tmp_path / "out"))))
    for event in events:
        tell(event)
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    found = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    (run,) = found.Runs()
    assert folder.name in run

    def points(tag):
        return [
            (e.step, round(float(e.tensor_proto.float_val[0]), 6)) for e in found.Tensors(run, tag)
        ]

    assert points("train/loss") == [(10, 1.25), (20, 1.25)]
    assert points("eval/loss") == [(20, 0.75)]
    assert points("train/train_loss") == [(20, 1.5)]
    assert offline == []


def test_the_environment_may_name_the_folder(events, tmp_path, monkeypatch):
    from mlx_yoda.report.trackers.tensorboard import open_tracker

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    tell = open_tracker(Config())
    tell(events[2])
    assert list((tmp_path / "elsewhere").iterdir())
