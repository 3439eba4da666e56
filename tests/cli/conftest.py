"""The command line in this process, and a run that other tests look at."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_yoda.cli.program import program
from mlx_yoda.demo.grammar import pairs

Invoke = Callable[..., Result]


def write_rows(path: Path, start: int, stop: int) -> Path:
    """Rows `start` to `stop` of the demo's grammar, as JSON lines."""
    rows = [{"prompt": plain, "completion": yoda} for plain, yoda in pairs(7, stop)[start:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Runs `mlx-yoda` with these arguments; a fault of the program fails the test."""

    def run(*args: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(program, [str(arg) for arg in args], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 16 training rows, 6 held-out rows and 4 test rows."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "train.jsonl", 0, 16)
    write_rows(folder / "valid.jsonl", 16, 22)
    write_rows(folder / "test.jsonl", 22, 26)
    return folder


@pytest.fixture(scope="session")
def trained(invoke: Invoke, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The result of a run of 8 steps on the demo's base; its folder is `.folder`."""
    folder = tmp_path_factory.mktemp("runs") / "yoda"
    result = invoke(
        *("train", "--model", "demo", "--data", data, "--output-dir", folder),
        *("--max-steps", 8, "--per-device-train-batch-size", 8, "--learning-rate", "5e-3"),
        *("--save-strategy", "steps", "--save-steps", 4, "--logging-steps", 4),
        *("--predict-with-generate", "--generation-max-new-tokens", 24),
    )
    assert result.exit_code == 0, result.stderr
    result.folder = folder  # type: ignore[attr-defined]
    return result


@pytest.fixture(scope="session")
def adapter(trained: Result) -> Path:
    """That run's folder, which is an adapter."""
    return trained.folder  # type: ignore[attr-defined]
