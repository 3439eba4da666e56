"""metrics.jsonl: what goes in, what survives a crash, what a resumed run takes back."""

import json

from mlx_yoda.report.events import Evaluated, Finished, Generated, Sample, Saved
from mlx_yoda.report.jsonl import JsonLines, read, rewind

SAMPLE = Sample("Where are you?", "Where are you, hmm?", "Here, «am» I.✓")
END = Finished(40, 1.5, 12.0, 4000, 2000, "out")


def test_a_line_holds_an_event_with_its_name(tmp_path, stepped):
    report = JsonLines(tmp_path / "metrics.jsonl")
    report(stepped(10))
    report(Generated("before", 0, 0.5, 33.3, 2, (SAMPLE,)))
    step, answers = read(report.path)
    assert step["event"] == "step"
    assert (step["step"], step["loss"], step["learning_rate"]) == (10, 1.25, 3e-4)
    assert "logged" not in step
    assert answers["event"] == "generate"
    assert answers["samples"][0]["answer"] == SAMPLE.answer


def test_only_logged_steps_are_written(tmp_path, stepped):
    report = JsonLines(tmp_path / "metrics.jsonl")
    for step in range(1, 7):
        report(stepped(step, logged=step % 3 == 0))
    assert [event["step"] for event in read(report.path)] == [3, 6]


def test_a_line_is_on_disk_at_once_and_the_file_is_appended_to(tmp_path, stepped):
    path = tmp_path / "metrics.jsonl"
    JsonLines(path)(stepped(1))
    assert len(path.read_text().splitlines()) == 1
    JsonLines(path)(stepped(2))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_line_that_was_cut_off_is_left_out(tmp_path, stepped):
    path = tmp_path / "metrics.jsonl"
    report = JsonLines(path)
    report(stepped(1))
    report(stepped(2))
    path.write_text(path.read_text()[:-20])
    assert [event["step"] for event in read(path)] == [1]


def test_rewinding_takes_back_what_came_after_the_step_and_the_end(tmp_path, stepped):
    path = tmp_path / "metrics.jsonl"
    report = JsonLines(path)
    for event in (stepped(10), Saved(10, "c"), stepped(20), Evaluated(20, 2.0, 1.0, 2.7, 9), END):
        report(event)
    rewind(path, 10)
    assert [(event["event"], event["step"]) for event in read(path)] == [("step", 10), ("save", 10)]
    report(stepped(20))
    rewind(path, 40)
    assert [event["step"] for event in read(path)] == [10, 10, 20]


def test_rewinding_a_file_that_is_not_there_makes_none(tmp_path):
    rewind(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())
