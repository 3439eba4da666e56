"""The comparison of trainers: it runs, and its report says what was measured."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.contenders.job import Outcome, Row, padded
from benchmarks.contenders.report import Report
from benchmarks.contenders.rounds import Run
from benchmarks.train import main

OUTCOME = Outcome(
    seconds=2.0,
    warm_up_seconds=1.0,
    updates=3,
    input_tokens=100,
    supervised_tokens=60,
    computed_tokens=125,
    peak_allocated=7_000_000,
    peak_resident=9_000_000,
    held_out_loss=1.5,
    device="cpu",
    versions={"mlx": "1"},
)
TINY = [
    "--hidden-size",
    "32",
    "--intermediate-size",
    "48",
    "--layers",
    "1",
    "--heads",
    "4",
    "--vocab-size",
    "800",
]
FEW = ["--rounds", "1", "--rows", "9", "--held-out", "3", "--batch-size", "4", "--no-compile"]
CONTENDERS = ["mlx-yoda packed", "mlx-lm", "Transformers + PEFT checkpointed"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    main([*TINY, *FEW, "--contenders", ",".join(CONTENDERS), "--output", str(folder)])
    return folder


@pytest.mark.peer
@pytest.mark.slow
def test_the_same_work_is_measured_for_everyone(results):
    report = json.loads((results / "train.json").read_text())
    found = {summary["contender"]: summary for summary in report["summaries"]}
    assert list(found) == CONTENDERS
    assert not any(summary["note"] for summary in found.values())
    assert found["mlx-lm"]["ratio"] == 1
    assert found["mlx-lm"]["updates"] == 2
    outcomes = [run["outcome"] for run in report["runs"]]
    assert len({outcome["input_tokens"] for outcome in outcomes}) == 1
    assert len({outcome["supervised_tokens"] for outcome in outcomes}) == 1
    assert report["settings"]["training rows"] == "8"
    for summary in found.values():
        assert summary["seconds"] > 0
        assert 0 < summary["supervised_tokens_per_second"] < summary["input_tokens_per_second"]
        assert 0 <= summary["padding_share"] < 0.6
        assert summary["peak_resident"] > 1e8
        assert summary["versions"]
    # One random base: after two updates the losses on the same rows are still about equal.
    losses = [summary["held_out_loss"] for summary in found.values()]
    assert max(losses) - min(losses) < 0.05
    assert found["mlx-lm"]["peak_allocated"] > 0


@pytest.mark.peer
@pytest.mark.slow
def test_page_and_picture_name_every_contender(results):
    page, picture = ((results / f"train.{ending}").read_text() for ending in ("md", "svg"))
    ElementTree.fromstring(picture)
    for name in CONTENDERS:
        assert name in page
        assert name in picture
    for word in ("chip", "dtype: float32", "padding", "thermal", "mlx-lm 0."):
        assert word in page


def test_ratios_are_paired_by_round():
    def run(name, number, seconds):
        return Run(name, number, replace(OUTCOME, seconds=seconds))

    runs = [run("mlx-lm", i, s) for i, s in enumerate((10.0, 20.0, 40.0))]
    runs += [run("mlx-yoda", i, s) for i, s in enumerate((5.0, 10.0, 30.0))]
    theirs, ours = Report({}, {}, runs).summaries()
    assert (theirs.ratio, ours.ratio) == (1, 0.5)
    assert (theirs.seconds, ours.seconds) == (20, 10)
    assert ours.input_tokens_per_second == 10
    assert ours.supervised_tokens_per_second == 6
    assert ours.padding_share == pytest.approx(0.2)


def test_who_is_not_there_is_said_to_be_so():
    report = Report({}, {}, [Run("mlx-yoda", 0, OUTCOME), Run("TRL", 0, None, "not installed: x")])
    assert "| TRL | not installed: x |" in report.markdown()
    assert "TRL" not in report.svg()
    assert report.summaries()[0].ratio is None


def test_an_allocator_that_does_not_tell_leaves_a_gap():
    report = Report({}, {}, [Run("mlx-lm", 0, replace(OUTCOME, peak_allocated=None))])
    assert report.summaries()[0].peak_allocated is None
    assert "None" not in report.markdown()


def test_targets_and_padding_of_a_batch():
    tokens, labels = padded([Row([5, 6, 7, 8], 2), Row([9, 1], 0)])
    assert tokens.tolist() == [[5, 6, 7, 8], [9, 1, 0, 0]]
    assert labels.tolist() == [[-100, -100, 7, 8], [-100, 1, -100, -100]]
    assert Row([5, 6, 7, 8], 2).targets == 2
    assert Row([9, 1], 0).targets == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contenders", "nobody"], "'nobody' is no contender"),
        (["--rows", "10000"], "rows are not enough"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*TINY, *arguments])
    assert message in str(stop.value) + capsys.readouterr().err
