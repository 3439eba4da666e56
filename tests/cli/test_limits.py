"""What a model cannot be given is one sentence and exit code 2, in every command."""

import json
import shutil

import pytest

from mlx_yoda import api
from mlx_yoda.errors import UserError
from mlx_yoda.model.load import resolve

EXTRA = "<|extra|>"
POSITIONS = "but the model has 512 positions"
NO_ROW = f"has the token '{EXTRA}' of id 768, for which the model has no row"
LONG = "the old map " * 400


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The demo with a token for which its embedding has no row."""
    folder = shutil.copytree(resolve("demo"), tmp_path_factory.mktemp("wide") / "demo")
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    last = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"].append(last | {"id": 768, "content": EXTRA, "special": False})
    file.write_text(json.dumps(tokenizer))
    return folder


def rows(folder, **changed):
    """Some rows, the last of them changed, in each split."""
    found = [{"prompt": f"I am {i}.", "completion": "Here."} for i in range(6)]
    found[-1] |= changed
    for split in ("train", "valid", "test"):
        text = "".join(json.dumps(row) + "\n" for row in found)
        (folder / f"{split}.jsonl").write_text(text)
    return folder


@pytest.mark.parametrize("command", ["train", "plan", "evaluate"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [({"completion": f"Oh {EXTRA}"}, NO_ROW), ({"completion": LONG}, POSITIONS)],
)
def test_rows(invoke, model, tmp_path, command, changed, message):
    data = rows(tmp_path, **changed)
    options = ["--model", model, "--data", data, "--set", "data.max_length=2000"]
    if command == "train":
        options += ["--output-dir", tmp_path / "out"]
    result = invoke(command, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_questions_that_leave_no_room_are_refused_before_training(invoke, model, tmp_path):
    """A row of plain tokens is cut to max_length, its prompt is asked as a whole."""
    data = rows(tmp_path)
    row = {"prompt": LONG, "completion": "Here."}
    (data / "valid.jsonl").write_text(json.dumps(row) + "\n")
    options = ["--train-on", "all", "--set", "data.max_length=64", "--output-dir", tmp_path / "out"]
    result = invoke("train", "--model", model, "--data", data, *options)
    assert result.exit_code == 2
    assert POSITIONS in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(("prompt", "message"), [(f"Oh {EXTRA}", NO_ROW), (LONG, POSITIONS)])
def test_prompts(invoke, model, command, prompt, message):
    result = invoke(command, "--model", model, "--max-tokens", 3, stdin=f"{prompt}\n")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["generate", "chat", "serve"])
@pytest.mark.parametrize(
    "option",
    ["--max-tokens=0", "--temperature=nan", "--temperature=inf", "--top-p=nan", "--seed=-1"],
)
def test_options_are_refused_before_anything_is_loaded(invoke, command, option):
    result = invoke(command, "--model", "/nowhere", option)
    assert result.exit_code == 2
    assert option[2:].partition("=")[0].replace("-", "_") in result.stderr
    assert "nowhere" not in result.stderr


def test_in_python(model):
    responder = api.load(model)
    for prompt, message in ((f"Oh {EXTRA}", "no row"), (LONG, "512 positions")):
        with pytest.raises(UserError, match=message):
            api.generate(responder, prompt)
    with pytest.warns(UserWarning, match="The answer ends here: all 512 positions"):
        api.generate(responder, "a map " * 80, max_tokens=10**6, temperature=50.0, seed=1)


def test_an_answer_that_fills_the_positions_says_so(invoke, model):
    options = ["--max-tokens", 10**6, "--temperature", 50, "--seed", 1]
    result = invoke("generate", "--model", model, *options, "a map " * 80)
    assert result.exit_code == 0
    assert "The answer ends here: all 512 positions of the model are full." in result.stderr
    assert result.stdout.count("\n") >= 1
