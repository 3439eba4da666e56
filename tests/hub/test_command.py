"""`mlx-yoda push` and what comes after it, each in a process of its own, as users run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mlx_yoda.demo.grammar import pairs
from mlx_yoda.hub.record import read_record
from mlx_yoda.model.load import resolve
from tests.hub.handler import TOKEN

QUESTION = "My traveller is always calm."


@pytest.fixture
def run(hub, tmp_path):
    """Runs `mlx-yoda` against the Hub with nothing of this machine's own settings."""

    def run(*args, **variables):
        environment = {k: v for k, v in os.environ.items() if "HF_" not in k and "OFFLINE" not in k}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}
        environment |= {"HF_HUB_DISABLE_XET": "1", **variables}
        command = [sys.executable, *(() if args[0] == "-c" else ("-m", "mlx_yoda"))]
        command += map(str, args)
        environment = {k: v for k, v in environment.items() if v}
        place = tmp_path / "cwd"
        place.mkdir(exist_ok=True)
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place)

    return run


@pytest.mark.slow
def test_a_dry_run_shows_files_and_card_and_asks_nobody(run, hub, folder):
    done = run("push", folder, "me/yoda", "--dry-run", HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    assert "kB  adapter_model.safetensors" in done.stdout
    assert "library_name: peft" in done.stdout
    assert "\n# yoda\n" in done.stdout
    assert "optimizer.safetensors" not in done.stdout
    more = run("push", folder, "me/yoda", "--dry-run", "--include-checkpoints")
    assert "checkpoint-6/optimizer.safetensors" in more.stdout


@pytest.mark.slow
def test_a_name_that_no_hub_takes_is_refused_in_a_dry_run_too(run, hub, folder):
    done = run("push", folder, "me and/yoda", "--dry-run", HF_TOKEN="")
    assert (done.returncode, done.stdout, hub.requests) == (2, "", [])
    assert "error: the Hub takes no such name" in done.stderr
    assert "'me and/yoda'" in done.stderr


@pytest.mark.slow
def test_pushed_and_taken_from_the_hub_the_adapter_says_the_same(run, hub, folder):
    done = run("push", folder, "me/yoda", "--private", "--message", "First words")
    assert done.returncode == 0, done.stderr
    commit = hub.repos["models/me/yoda"].branches["main"][-1]
    assert done.stdout == f"{hub.url}/me/yoda/commit/{commit.oid}\n"
    assert commit.message == "First words"
    [snippet] = re.findall("```python\n(.*?)```", commit.files["README.md"].data.decode(), re.S)
    in_peft = run("-c", snippet)
    assert in_peft.returncode == 0, in_peft.stderr
    asked = read_record(folder).last("generate")["samples"][0]["prompt"]
    theirs = run("generate", "--adapter", "me/yoda", asked)
    assert theirs.returncode == 0, theirs.stderr
    ours = run("generate", "--adapter", folder, asked)
    assert in_peft.stdout.strip() == theirs.stdout.strip() == ours.stdout.strip() != ""


@pytest.mark.slow
def test_base_and_data_of_the_hub_are_named_and_found_again(run, hub, tmp_path):
    demo = Path(resolve("demo"))
    base = {file.name: file.read_bytes() for file in demo.iterdir()}
    hub.add("models/owner/base", {**base, "README.md": b"---\nlicense: mit\n---\n# Base\n"})
    rows = [json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs(7, 12)]
    files = {"train.jsonl": "".join(rows[:8]).encode(), "test.jsonl": "".join(rows[8:]).encode()}
    hub.add("datasets/owner/rows", files)
    short = ("--max-steps", 2, "--set", "data.validation_split=0.25", "--output-dir", "out")
    trained = run("train", "--model", "owner/base", "--data", "owner/rows", *short)
    assert trained.returncode == 0, trained.stderr
    pushed = run("push", "out", "me/yoda")
    assert pushed.returncode == 0, pushed.stderr
    card = ModelCard(hub.files("me/yoda")["README.md"].decode())
    assert card.data.base_model == "owner/base"
    assert card.data.datasets == ["owner/rows"]
    assert card.data.license == "mit"
    said = run("generate", "--adapter", "me/yoda", QUESTION)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()


@pytest.mark.slow
def test_no_failed_push_says_the_token(run, hub, folder, tmp_path):
    said = f"Bearer {TOKEN} may not"
    body = f'{{"error": "{said}"}}'
    hub.fail("POST", "/commit/", 403, headers={"X-Error-Message": said}, body=body, times=9)
    hub.fail("POST", "/verify", 503, headers={"X-Error-Message": said}, body=body)
    done = run("push", folder, "me/yoda")
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the Hub does not let you write there")
    assert last.endswith("nothing was published in me/yoda.")
    assert "Traceback" not in done.stderr
    written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert written
    for secret in (TOKEN, "signature=sesame"):
        assert secret not in done.stderr
        assert not [content for content in written if secret.encode() in content]
    assert hub.files("me/yoda") == {}


@pytest.mark.slow
def test_without_a_token_it_says_how_to_log_in(run, hub, folder):
    done = run("push", folder, "me/yoda", HF_TOKEN="")
    assert done.returncode == 2
    assert "hf auth login" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: there is no token")


SNAPSHOT = "from huggingface_hub import snapshot_download as get; print(get('me/yoda'))"


@pytest.mark.slow
def test_through_xet_too(run, hub, folder, tmp_path):
    hub.xet = tmp_path / "store"
    done = run("push", folder, "me/yoda", HF_HUB_DISABLE_XET="")
    assert done.returncode == 0, done.stderr
    assert hub.times("GET", "xet-write-token") and not hub.times("PUT", "/storage/")
    back = run("-c", SNAPSHOT, HF_HUB_DISABLE_XET="")
    assert back.returncode == 0, back.stderr
    assert hub.times("GET", "xet-read-token") and not hub.times("GET", "/storage/")
    name = "adapter_model.safetensors"
    assert (Path(back.stdout.strip()) / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_a_hub_whose_xet_store_is_out_of_order(run, hub, folder):
    done = run("push", folder, "me/yoda", HF_HUB_DISABLE_XET="")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the transfer failed")
    assert last.endswith("does without Xet; nothing was published in me/yoda.")
    assert hub.files("me/yoda") == {}
