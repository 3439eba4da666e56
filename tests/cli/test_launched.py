"""The command line where a launcher has started several processes."""

import json

import pytest


@pytest.fixture
def as_rank(monkeypatch, tmp_path):
    """Makes this process look like one of two that `mlx.launch` has started."""

    def launched(rank: int) -> None:
        hosts = tmp_path / "hosts"
        hosts.write_text(json.dumps([["127.0.0.1:1"], ["127.0.0.1:2"]]))
        monkeypatch.setenv("MLX_RANK", str(rank))
        monkeypatch.setenv("MLX_HOSTFILE", str(hosts))

    return launched


@pytest.mark.parametrize("command", ["plan", "generate", "serve", "push"])
def test_only_training_is_for_several_processes_which_one_of_them_says(invoke, as_rank, command):
    as_rank(0)
    result = invoke(command)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: mlx-yoda {command} is for one process: run it without a launcher.\n"
    )
    as_rank(1)
    result = invoke(command)
    assert (result.exit_code, result.output) == (2, "")


def test_errors_before_the_processes_have_met_name_the_process(invoke, as_rank):
    as_rank(1)
    result = invoke("train", "--no-such-option")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: process 1: No such option '--no-such-option'.")
    assert invoke("--help").exit_code == 0
