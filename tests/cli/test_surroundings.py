"""Surroundings that are not as usual end in one sentence, and so does a fault of the program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_yoda.cli.streams import open_standard_streams

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_" + "aB3" * 11 + "Z"
INFO = "from mlx_yoda.cli import main; main()"
FAULT = f"""
import mlx_yoda.cli.info as info
from mlx_yoda.cli import main

class Panic(BaseException):
    pass

def broken():
    raise {{kind}}("told {TOKEN}\\nand more")

info.prefer_openblas = broken
main()
"""
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.fixture
def run(tmp_path):
    """Runs a program as `mlx-yoda ARGS`, within a shell's words around it."""

    def run(program, args="info --json", around="{}", **variables):
        quoted = f'"{sys.executable}" -c "$PROGRAM" {args}'
        environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PROGRAM": program}
        environment = os.environ | environment | variables
        return subprocess.run(
            ["bash", "-c", around.format(quoted)],
            env={name: value for name, value in environment.items() if value},
            capture_output=True,
            cwd=tmp_path,
        )

    return run


def one_sentence(done, code):
    lines = done.stderr.decode().splitlines()
    assert done.returncode == code, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ") and lines[0].endswith(".")
    return lines[0]


@pytest.mark.parametrize("kind", ["ZeroDivisionError", "Panic"])
def test_a_fault_is_one_sentence_and_a_private_report(run, tmp_path, kind):
    done = run(FAULT.format(kind=kind), f"info --json -- {TOKEN}" if kind == "Panic" else "info")
    said = one_sentence(done, 70 if kind != "Panic" else 2)
    if kind == "Panic":  # a wrong command line is not a fault; without it Panic is one
        said = one_sentence(run(FAULT.format(kind=kind)), 70)
    assert f"{kind} (told hf_***); the full report is in {tmp_path}/" in said
    place = Path(re.search(r"report is in (\S+),", said)[1])
    assert place.stat().st_mode & 0o777 == 0o600
    report = place.read_text()
    assert f"{kind}: told hf_***\nand more" in report
    assert "arguments: ['info'" in report and "mlx-yoda: " in report
    assert TOKEN not in report + said


def test_a_fault_is_shown_where_that_is_asked_for(run):
    done = run(FAULT.format(kind="ZeroDivisionError"), MLX_YODA_DEBUG="1")
    assert done.returncode == 70
    assert b"Traceback (most recent call last)" in done.stderr
    assert TOKEN.encode() not in done.stderr


def test_a_fault_of_one_of_several_processes_says_which(run, tmp_path):
    program = FAULT.format(kind="ZeroDivisionError").replace("main()", "train()")
    program = program.replace("train()", "info.command.name = 'info'; main()")
    done = run(program, "--version", OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="2")
    assert done.returncode == 0
    program = "import mlx_yoda.cli.program as p; p.processes = None\n" + INFO
    done = run(program, OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="2")
    assert "error: process 1: mlx-yoda has a fault: TypeError" in one_sentence(done, 70)


def test_a_fault_without_a_temporary_folder_is_reported_in_the_caches(run, tmp_path):
    program = "import tempfile\ndef none(): raise FileNotFoundError(2, 'none')\n"
    program += "tempfile.gettempdir = none\n" + FAULT.format(kind="ZeroDivisionError")
    said = one_sentence(run(program, MLX_YODA_CACHE=str(tmp_path / "own")), 70)
    assert f"the full report is in {tmp_path}/own/" in said
    (tmp_path / "file").write_text("")
    said = one_sentence(run(program, MLX_YODA_CACHE=str(tmp_path / "file")), 70)
    assert "no report of it could be written" in said


def test_a_closed_standard_output_is_refused_before_any_work(run):
    assert "standard output is closed" in one_sentence(run(INFO, around="{} >&-"), 2)


def test_a_closed_standard_error_or_input_does_not_matter(run):
    for around in ("{} 2>&-", "{} <&-", "{} <&- 2>&-"):
        done = run(INFO, around=around)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b'"mlx-yoda"' in done.stdout
    assert run(INFO, around="{} >&- 2>&-").returncode == 2


def test_no_file_takes_the_place_of_a_stream_that_was_closed(run):
    program = "import os, sys\nfrom mlx_yoda.cli.streams import open_standard_streams\n"
    program += "open_standard_streams(); print(os.open('/dev/null', 0), file=sys.__stdout__)"
    assert int(run(program, around="{} <&- 2>&-").stdout) > 2


@FULL
def test_a_full_device_is_one_sentence(run):
    assert "No space left on device" in one_sentence(run(INFO, around="{} >/dev/full"), 2)


@FULL
def test_a_log_on_a_full_device_ends_nothing(run):
    done = run(INFO, around="{} 2>/dev/full")
    assert done.returncode == 0 and b'"mlx-yoda"' in done.stdout
    assert run(INFO, "push", around="{} 2>/dev/full").returncode == 2
    fault = FAULT.format(kind="ZeroDivisionError")
    assert run(fault, around="{} 2>/dev/full").returncode == 70
    program = "import sys\nfrom mlx_yoda.cli.streams import redacted_streams\n"
    program += "with redacted_streams():\n    for _ in range(9999): print('x', file=sys.stderr)\n"
    program += "    sys.stderr.flush(); print('end', flush=True)\nimport os; os._exit(0)"
    assert run(program, around="{} 2>/dev/full").stdout == b"end\n"


def test_in_a_folder_that_was_removed_a_path_is_explained(run, tmp_path):
    (tmp_path / "gone").mkdir()
    done = run(INFO, "report x", around="cd gone && rmdir ../gone && {}")
    one_sentence(done, 2)


def test_an_argument_that_is_not_text_is_refused(run):
    said = one_sentence(run(INFO, "report $'out\\xff'"), 2)
    assert r"'out\udcff' is not UTF-8" in said
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert "LC_ALL=C.UTF-8" in one_sentence(run(INFO, "report é", **plain), 2)
    assert run(INFO, **plain).returncode == 0


def test_what_an_encoding_cannot_write_is_escaped(run):
    program = "from mlx_yoda.cli.streams import open_standard_streams\n"
    program += "open_standard_streams(); print('é…')"
    assert run(program, PYTHONIOENCODING="ascii").stdout == b"\\xe9\\u2026\n"


def test_streams_that_are_there_stay(capsys):
    class Plain:
        def reconfigure(self, errors):
            self.errors = errors

    before = sys.stdout, sys.stderr
    try:
        sys.stdout = sys.stderr = plain = Plain()
        assert open_standard_streams()
        assert sys.stdout is sys.stderr is plain
    finally:
        sys.stdout, sys.stderr = before
