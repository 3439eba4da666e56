"""Tokens are planted in the environment, the data, the configuration and the Hub's errors, and
every byte that a run writes and prints is searched for them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = "hf_" + "OwnToken" * 4 + "x1"  # the user's, in the environment
ODD = "of-no-known-shape/7"  # the user's, of a kind that is not the Hub's
OTHER = "hf_" + "Planted9" * 4 + "x2"  # somebody's, in the data, the settings and error texts


def mlx_yoda(*args: object, token: str = OWN, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mlx_yoda", *map(str, args)],
        env=os.environ | {"HF_TOKEN": token} | environment,
        capture_output=True,
        cwd=ROOT,
    )


def leaks(done: subprocess.CompletedProcess, folder: Path | None = None) -> list[str]:
    """Where a planted token can be read."""
    places = {"stdout": done.stdout, "stderr": done.stderr}
    for path in folder.rglob("*") if folder else ():
        places |= {str(path): path.read_bytes() if path.is_file() else b""}
        places |= {f"the name {path}": path.name.encode()}
    tokens = [token.encode() for token in (OWN, ODD, OTHER)]
    return [place for place, content in places.items() if any(t in content for t in tokens)]


@pytest.fixture
def planted(data, tmp_path) -> list[object]:
    """Arguments of a run whose rows, file names and settings hold tokens."""
    folder = tmp_path / f"data-{OTHER}"
    folder.mkdir()
    for name in ("train.jsonl", "valid.jsonl"):
        rows = [json.loads(line) for line in (data / name).read_text().splitlines()]
        rows[0] |= {"prompt": f"My token is {OTHER}.", "completion": f"{OWN}, your token is."}
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("train", "--model", "demo", "--data", folder, "--output-dir", tmp_path / "out"),
        *("--model-revision", OTHER, "--max-steps", 4, "--logging-steps", 1),
        *("--save-strategy", "steps", "--save-steps", 2, "--predict-with-generate"),
        *("--generation-max-new-tokens", 32),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("token", [OWN, ODD])
def test_a_run_writes_and_prints_none(planted, tmp_path, token):
    done = mlx_yoda(*planted, token=token)
    assert done.returncode == 0, done.stderr.decode()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"config.yaml", "metrics.jsonl"} <= {path.name for path in written}
    assert b"My token is hf_***." in (tmp_path / "out" / "metrics.jsonl").read_bytes()
    assert leaks(done, tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        ["train", "--data", OTHER, "--model", "demo"],
        ["train", "--config", f"/nowhere/{OTHER}.yaml"],
        ["train", "--set", f"model.{OTHER}=1"],
        ["train", f"--{OTHER}"],
        ["generate", "--adapter", f"owner/{OTHER}", "Hello"],
    ],
    ids=lambda args: args[1],
)
def test_refusals_print_none(args):
    done = mlx_yoda(*args)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(b"error: ")
    assert b"***" in done.stderr
    assert leaks(done) == []


@pytest.mark.slow
def test_an_error_of_the_hub_prints_none(tmp_path):
    online = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0")
    done = mlx_yoda(
        *("train", "--model", "demo", "--data", "owner/name", "--output-dir", tmp_path / "out"),
        **online,
        HF_ENDPOINT=f"http://me:{OTHER}@127.0.0.1:9/{OTHER}",
    )
    assert done.returncode == 2, done.stderr.decode()
    assert leaks(done, tmp_path) == []


def test_a_fault_prints_and_writes_none(tmp_path):
    code = (
        "from mlx_yoda import cli; from mlx_yoda.cli.program import program\n"
        "def fail(*_, **__): raise RuntimeError('401 for ' + token)\n"
        f"token = '{OTHER}'; program.main = fail; cli.main()"
    )
    environment = {**os.environ, "MLX_YODA_DEBUG": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 70
    assert b"RuntimeError: 401 for hf_***" in done.stderr
    (report,) = tmp_path.glob("mlx-yoda-fault-*")
    assert b"RuntimeError: 401 for hf_***" in report.read_bytes()
    assert leaks(done, tmp_path) == []
