"""metrics.jsonl: what goes in, what survives a crash, what a resumed run takes back."""

import json
import math
import subprocess
import sys

import pytest

from mlx_yoda.errors import UserError
from mlx_yoda.report.events import Evaluated, Finished, Generated, Noted, Sample, Saved, Working
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


def test_what_it_is_busy_with_is_no_metric(tmp_path, stepped):
    report = JsonLines(tmp_path / "metrics.jsonl")
    report(Working("compiling"))
    report(stepped(1))
    assert [event["event"] for event in read(report.path)] == ["step"]


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


def test_a_line_that_nests_without_end_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "note"}\n' + "[" * 100_000 + "\n")
    assert read(path) == [{"event": "note"}]


@pytest.mark.parametrize(
    "line", [b"3", b"[]", b'{"a": 1}', b'{"event": "step", "step": "x"}', b"\xff\xfe", b"{"]
)
def test_damaged_lines_cost_a_resumed_run_no_more_than_themselves(tmp_path, stepped, line):
    path = tmp_path / "metrics.jsonl"
    JsonLines(path)(stepped(1))
    with path.open("ab") as file:
        file.write(line + b"\n")
    JsonLines(path)(stepped(2))
    rewind(path, 2)
    assert [event["step"] for event in read(path)] == [1, 2]


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


def test_numbers_that_are_not_finite_are_null_and_come_back_as_nan(tmp_path, stepped):
    path = tmp_path / "metrics.jsonl"
    JsonLines(path)(Evaluated(1, math.inf, math.nan, 2.0, 9))
    rewind(path, 1)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    (line,) = path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["eval_loss"] is None
    (event,) = read(path)
    assert math.isnan(event["eval_loss"]) and math.isnan(event["epoch"])
    assert event["eval_perplexity"] == 2.0


def test_lines_of_an_older_version_may_have_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "step", "step": 1, "loss": NaN}\n')
    assert math.isnan(read(path)[0]["loss"])


def test_what_is_appended_has_no_access_token(tmp_path):
    token = "hf_" + "a" * 34
    JsonLines(tmp_path / "metrics.jsonl")(Noted(f"with {token}"))
    assert token not in (tmp_path / "metrics.jsonl").read_text()


def test_the_last_line_that_cannot_be_written_is_an_error(tmp_path):
    report = JsonLines(tmp_path / "gone" / "metrics.jsonl")
    report(Noted("one"))  # may come later
    with pytest.raises(UserError, match=r"last lines of .*metrics\.jsonl are not: No such file"):
        report(END)


def test_rewinding_a_file_that_is_not_there_makes_none(tmp_path):
    rewind(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_written_later(tmp_path):
    path = tmp_path / "gone" / "metrics.jsonl"
    lines = JsonLines(path)
    lines(Noted("one"))
    lines(Noted("two"))
    path.parent.mkdir()
    lines(Noted("three"))
    lines(Noted("four"))
    assert [event["message"] for event in read(path)] == ["one", "two", "three", "four"]


def test_a_line_that_is_cut_off_by_a_full_disk_is_taken_back(tmp_path):
    """In a process of its own, whose files may have 100 bytes."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from mlx_yoda.report.events import Noted; from mlx_yoda.report.jsonl import JsonLines\n"
        "lines = JsonLines(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "lines(Noted('one')); lines(Noted('2' * 90)); print(Path(sys.argv[1]).read_text())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "lines(Noted('three'))\n"
    )
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == '{"event": "note", "message": "one"}\n\n'
    assert [event["message"] for event in read(path)] == ["one", "2" * 90, "three"]
