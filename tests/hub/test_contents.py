import json
from pathlib import Path

import pytest

from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.hub.contents import Item
from mlx_yoda.recipes.export import export
from mlx_yoda.recipes.publish import gather
from mlx_yoda.train.integrity import flaw
from tests.hub.test_push import bytes_of, items_of


def by_path(items: list[Item]) -> dict[str, bytes]:
    return {item.path: bytes_of(item) for item in items}


def test_no_path_of_this_machine_is_published(folder, finished, tmp_path):
    note = f"rows of {Path.home()}/rows.jsonl, see {finished}. Also {finished}/checkpoint-3"
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "note", "message": note}) + "\n")
    files = by_path(items_of(folder, with_checkpoints=True))
    for content in files.values():
        for path in (str(finished), str(finished.parent), str(folder), str(Path.home()) + "/"):
            assert path.encode() not in content
    last = json.loads(files["metrics.jsonl"].splitlines()[-1])
    assert last["message"] == "rows of ~/rows.jsonl, see yoda. Also yoda/checkpoint-3"


def test_the_published_configuration_is_one(folder, tmp_path):
    files = by_path(items_of(folder, base="owner/base"))
    (tmp_path / "config.yaml").write_bytes(files["config.yaml"])
    config = load_config(tmp_path / "config.yaml")
    assert config.model.model_name_or_path == "owner/base"
    assert config.data.dataset_name == "demo"
    assert config.train.output_dir == "yoda"
    assert config.train.learning_rate == 1e-2


def test_a_base_that_only_this_machine_has_is_asked_for(folder, tmp_path):
    (tmp_path / "phi3-4bit").mkdir()
    keys = json.loads((folder / "adapter_config.json").read_text())
    keys["base_model_name_or_path"] = str(tmp_path / "phi3-4bit")
    (folder / "adapter_config.json").write_text(json.dumps(keys))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    started = json.loads(lines[0]) | {"base_model": None}
    (folder / "metrics.jsonl").write_text("\n".join([json.dumps(started), *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="--base-model OWNER/NAME"):
        items_of(folder)
    published = json.loads(by_path(items_of(folder, base="owner/base"))["adapter_config.json"])
    assert published == keys | {"base_model_name_or_path": "owner/base"}


def test_the_vocabulary_is_left_alone_whatever_it_says(folder):
    text = json.dumps({"vocab": {str(Path.home()): 1}})
    (folder / "tokenizer.json").write_text(text)
    assert by_path(items_of(folder))["tokenizer.json"].decode() == text


def test_own_words_are_published_as_they_are(folder):
    (folder / "README.md").write_text("# My own words\n")
    assert by_path(items_of(folder))["README.md"] == b"# My own words\n"


@pytest.mark.parametrize("name", ["README.md", "metrics.jsonl", "tokenizer_config.json"])
def test_a_file_with_a_token_in_it_is_not_published(folder, name):
    token = "hf_" + "x" * 34
    if name == "metrics.jsonl":
        line = json.dumps({"event": "note", "message": f"with {token}"})
        (folder / name).write_text((folder / name).read_text() + line + "\n")
    else:
        (folder / name).write_text(json.dumps({"auth": token}))
    with pytest.raises(UserError, match=f"{name} holds what looks like an access token") as error:
        items_of(folder)
    assert token not in str(error.value)


def test_a_folder_that_is_no_adapter(tmp_path):
    with pytest.raises(UserError, match=r"no finished run: it has no adapter_config\.json"):
        items_of(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000])
def test_an_adapter_config_that_is_none(folder, content):
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=r"adapter_config\.json (cannot be|must hold)"):
        items_of(folder)


def test_published_checkpoints_are_intact(folder, tmp_path):
    for item in items_of(folder, with_checkpoints=True, base="owner/base"):
        path = tmp_path / "there" / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(item))
    for name in ("checkpoint-3", "checkpoint-6"):
        keys = json.loads((tmp_path / "there" / name / "adapter_config.json").read_text())
        assert keys["base_model_name_or_path"] == "owner/base"
        assert flaw(tmp_path / "there" / name) is None


def test_an_exported_adapter_can_be_published_too(folder, tmp_path):
    export(str(folder), tmp_path / "peft", "peft", ModelConfig(), base_of_adapter=True)
    files = by_path(items_of(tmp_path / "peft"))
    assert files.keys() == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.svg",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert files["README.md"] == (folder / "README.md").read_bytes()


def test_the_adapter_that_a_run_went_on_from_keeps_its_place_to_itself(folder):
    settings = folder / "config.yaml"
    told = settings.read_text().replace("init_adapter: null", "init_adapter: /data/secret/first")
    settings.write_text(told)
    assert "/data/secret/first" in told
    published = by_path(items_of(folder))["config.yaml"]
    assert b"init_adapter: first" in published
    assert b"/data/secret" not in published


@pytest.mark.parametrize("start", ["../private/first", "/data/secret/first", "~/private/first"])
def test_a_start_from_any_folder_is_published_as_its_name(folder, start):
    settings = folder / "config.yaml"
    settings.write_text(
        settings.read_text().replace("init_adapter: null", f"init_adapter: {start}")
    )
    note = {"event": "note", "message": f"starting from {start}: rank 8"}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(note) + "\n")
    files = by_path(items_of(folder))
    assert b"init_adapter: first\n" in files["config.yaml"]
    assert json.loads(files["metrics.jsonl"].splitlines()[-1])["message"] == (
        "starting from first: rank 8"
    )


def test_a_start_from_the_hub_keeps_its_name(folder):
    settings = folder / "config.yaml"
    settings.write_text(
        settings.read_text().replace("init_adapter: null", "init_adapter: me/first")
    )
    assert b"init_adapter: me/first\n" in by_path(items_of(folder))["config.yaml"]


def test_a_note_may_name_any_folder_of_this_machine_and_none_is_published(folder, tmp_path):
    """A token cache outside home, a checkpoint elsewhere; what only looks like a path stays."""
    said = {
        f"tokens are kept in {tmp_path}/cache/tokens.": "tokens are kept in tokens.",
        f"passed over '{tmp_path}/é/checkpoint-4' (bad)": "passed over 'checkpoint-4' (bad)",
        f"{tmp_path}/a.csv:7: too long": "a.csv:7: too long",
        "2/3 of the rows, and/or https://huggingface.co/tmp/x, /reset, /nowhere/x": None,
        "<think>\n\n</think>/tmp": None,
    }
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"event": "note", "message": note}) + "\n" for note in said)
        answer = {"event": "generate", "when": "x", "samples": [{"prompt": "see /tmp/x/y"}]}
        file.write(json.dumps(answer) + "\n")
    *notes, answered = by_path(items_of(folder))["metrics.jsonl"].splitlines()[-len(said) - 1 :]
    assert [json.loads(note)["message"] for note in notes] == [
        wanted or note for note, wanted in said.items()
    ]
    assert json.loads(answered) == answer


def test_without_a_home_there_is_nothing_to_hide_of_it(folder, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert by_path(items_of(folder))


@pytest.mark.parametrize(
    "line",
    [
        {"event": "finished", "input_tokens": 1},
        {"event": "generate", "when": "after", "step": 12, "samples": [1]},
        {"event": "started"},
        {"event": "started", "train_rows": 1, "rows_per_step": 4, "machine": "x"},
        {"event": "step", "step": "x", "loss": {}},
        {"event": "generate", "when": "after", "samples": [{"prompt": [], "answer": {}}]},
        {"event": "evaluate", "step": 12, "eval_loss": "x"},
    ],
    ids=str,
)
def test_damaged_metrics_are_published_or_said_in_one_sentence(folder, line):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    try:
        assert gather(folder, "me/x", ask_hub=False)
    except UserError as error:
        assert "metrics.jsonl holds what no run writes" in str(error)
