"""--overwrite replaces what a run wrote and nothing else, and one of two runs is there always."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_yoda.errors import UserError
from mlx_yoda.recipes import overwriting
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.output import Output, open_output
from mlx_yoda.recipes.overwriting import WRITTEN_FILE, check_replaceable, restore_old, set_aside
from mlx_yoda.train.checkpoint import checkpoints

OLD, MOVING = ".overwritten", ".overwriting"


@pytest.fixture(scope="module")
def whole(configure, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    finetune(configure(output), reporter=lambda event: None)
    return output


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-500/pytorch_model.bin",
        "checkpoint-6/pytorch_model.bin",
        "report.html",
        "tokenizer.json",
        "config.yaml",
        "metrics.jsonl",
        "adapter_model.safetensors",
    ],
)
def test_what_no_run_wrote_is_refused_by_name_and_stays(run, name):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")
    before = tree(run)
    with pytest.raises(UserError, match="was not written by a run") as error:
        open_output(run, resume=False, overwrite=True)
    assert str(run / name).startswith(str(error.value).split(" was")[0])
    assert tree(run) == before


def test_a_strangers_folder_is_refused(tmp_path):
    """A configuration written by hand; Transformers' checkpoint, which has our file's name too."""
    for name in ("config.yaml", "checkpoint-500/trainer_state.json"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text('{"global_step": 500}')
        (folder / name).with_name("pytorch_model.bin").write_text("mine")
        with pytest.raises(UserError, match="was not written by a run"):
            open_output(folder, resume=False, overwrite=True)


def test_what_a_run_reads_is_no_output_folder(base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "base")
    with pytest.raises(UserError, match="is one that the run reads"):
        open_output(copy, resume=False, overwrite=True, inputs=[tmp_path / "x", copy])


def test_a_run_of_a_version_without_a_list_of_files_is_replaced(run):
    (run / WRITTEN_FILE).unlink()
    check_replaceable(run)
    (run / "config.yaml").write_text("# mine\n" + (run / "config.yaml").read_text())
    with pytest.raises(UserError, match=r"config\.yaml was not written"):
        check_replaceable(run)


def test_a_run_that_was_killed_while_it_ended_is_replaced(run):
    overwriting.record_writing(run)
    check_replaceable(run)
    shutil.rmtree(run / "checkpoint-6")
    (run / "tokenizer.json").write_text("half")
    check_replaceable(run)


def test_a_run_that_was_killed_while_it_began_is_replaced(configure, tmp_path, monkeypatch):
    """At each write of a file before its first event."""
    config, rename = configure(tmp_path / "run"), os.replace
    for writes in range(3):
        left = writes

        def replace(source, target):
            nonlocal left
            rename(source, target)
            if left == 0:
                raise KeyboardInterrupt
            left -= 1

        opened = open_output(tmp_path / "run", resume=False, overwrite=True)
        (tmp_path / "run").mkdir(exist_ok=True)
        monkeypatch.setattr(overwriting.files.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            opened.begin(config, 0)
        monkeypatch.undo()
    check_replaceable(tmp_path / "run")


def test_what_else_is_in_the_folder_stays(run):
    for name in ("notes.txt", "runs/mine/events"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
    set_aside(run)
    assert set(tree(run)) - {name for name in tree(run) if name.startswith(OLD)} == {
        "notes.txt",
        "runs/mine/events",
    }


def test_killed_at_any_move_the_old_run_is_put_back(run, monkeypatch):
    before, moves, rename = tree(run), 0, os.rename
    while True:
        left = moves

        def move(source, target):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            rename(source, target)

        monkeypatch.setattr(overwriting.os, "rename", move)
        try:
            set_aside(run)
            break
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.undo()
        opened = open_output(run, resume=True, overwrite=False)
        assert opened.checkpoint.name == "checkpoint-6"
        restore_old(run)
        assert tree(run) == before
        moves += 1
    assert moves > 8
    assert tree(run / OLD) == before
    assert open_output(run, resume=True, overwrite=False).checkpoint.parent == run / OLD
    restore_old(run)
    assert tree(run) == before


def test_the_old_run_goes_when_the_new_one_has_a_checkpoint(configure, run):
    seen = []

    def look(event):
        if event.name in ("started", "save"):
            seen.append((event.name, len(checkpoints(run / OLD))))

    finetune(configure(run, "train.seed=7", "train.save_steps=3"), reporter=look, overwrite=True)
    assert seen == [("started", 6), ("save", 6), ("save", 0)]
    assert {path.name for path in checkpoints(run)} == {"checkpoint-3", "checkpoint-6"}
    check_replaceable(run)


def test_a_new_run_that_never_had_a_checkpoint_gives_way(run):
    set_aside(run)
    (run / "metrics.jsonl").write_text('{"event": "started"}\n')
    set_aside(run)  # a second --overwrite: the one with checkpoints stays
    assert checkpoints(run / OLD)
    assert not (run / "metrics.jsonl").exists()


def test_of_two_runs_the_second_says_who_has_the_folder(tmp_path):
    with Output(tmp_path, None).locked():
        for attempt in (
            lambda: open_output(tmp_path, resume=False, overwrite=True),
            lambda: Output(tmp_path, None).locked().__enter__(),
        ):
            with pytest.raises(UserError, match=rf"another run .*process {os.getpid()} on .* 20"):
                attempt()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_run_that_was_killed_is_none(tmp_path):
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'a')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('ready', flush=True)\n"
        "input()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(UserError, match="another run is writing"):
            open_output(tmp_path, resume=False, overwrite=True)
        other.kill()
    open_output(tmp_path, resume=False, overwrite=True)
    with Output(tmp_path, None).locked():
        pass


def test_a_run_that_began_and_ended_meanwhile_is_not_replaced(configure, run, tmp_path):
    opened = open_output(tmp_path / "new", resume=False, overwrite=False)
    shutil.copytree(run, tmp_path / "new")
    before = tree(tmp_path / "new")
    with pytest.raises(UserError, match="is not empty"):
        opened.begin(configure(tmp_path / "new"), 0)
    assert tree(tmp_path / "new") == before


def test_a_disk_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def none(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with Output(tmp_path, None).locked():
        pass


@pytest.mark.parametrize("name", ["a\0b", "a\udcffb"])
def test_a_name_that_no_folder_can_have_is_refused_at_once(name):
    with pytest.raises(UserError, match=r"train\.output_dir"):
        open_output(Path(name), resume=False, overwrite=False)


def test_a_rotated_checkpoint_is_answered_with_those_that_are_there(run):
    shutil.rmtree(run / "checkpoint-2")
    with pytest.raises(UserError, match=r"there is no .*checkpoint-2; .* has checkpoint-1, check"):
        open_output(run, resume=run / "checkpoint-2", overwrite=False)


def test_a_checkpoint_that_was_not_announced_is_announced_by_the_resumed_run(configure, run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if (line["event"], line.get("step")) != ("save", 6)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    finetune(configure(run), reporter=lambda event: None, resume=True)
    again = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in again if e["event"] == "save"] == [1, 2, 3, 4, 5, 6]
