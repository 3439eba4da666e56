"""`mlx-yoda report`, and the page that a run leaves."""

import shutil

import pytest


def test_a_run_leaves_its_page(trained):
    page = (trained.folder / "report.html").read_text()
    assert "Held-out questions, before and after" in page
    assert "How the answer changed" in page
    assert "and report.html" in trained.stdout


def test_the_command_writes_the_same_page_again(trained, invoke, tmp_path):
    folder = tmp_path / "yoda"
    shutil.copytree(trained.folder, folder)
    page = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    result = invoke("report", folder)
    assert result.exit_code == 0
    assert f"Wrote {folder / 'report.html'}" in result.stdout
    written = (folder / "report.html").read_text()
    assert written.replace(str(folder), str(trained.folder)) == page


def test_several_runs_go_where_they_are_asked_to(trained, invoke, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(trained.folder, folder)
    result = invoke("report", trained.folder, folder, "--output", tmp_path / "both.html")
    assert result.exit_code == 0
    assert "2 runs side by side" in (tmp_path / "both.html").read_text()


def test_a_folder_without_a_run_is_refused(invoke, tmp_path):
    result = invoke("report", tmp_path)
    assert result.exit_code == 2
    assert "has no metrics.jsonl: name the output folder of a run." in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_may_report_to_tensorboard_too(invoke, data, tmp_path):
    pytest.importorskip("tensorboard")
    result = invoke(
        *("train", "--model", "demo", "--data", data, "--output-dir", tmp_path / "out"),
        *("--max-steps", 2, "--report-to", "tensorboard"),
    )
    assert result.exit_code == 0, result.stderr
    assert len(list(tmp_path.glob("out/runs/*/events.out.tfevents.*"))) == 1
