import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.hub.base import public_base
from mlx_yoda.hub.card import MARKER, as_text, make_card, write_card
from mlx_yoda.hub.record import read_record
from mlx_yoda.hub.tables import cell
from mlx_yoda.model.convert import convert
from mlx_yoda.recipes.finetune import finetune

OWN = "# My own words\n"


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)


def card_of(folder: Path, **how) -> ModelCard:
    record = read_record(folder)
    return make_card(record, public_base(record, how.pop("base", None)), adapter="me/yoda", **how)


def change(path: Path, **keys) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.slow
def test_a_run_writes_its_card_with_metadata_that_the_hub_takes(finished):
    card = ModelCard.load(finished / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "text-generation"
    assert "base_model" not in data  # the demo's base is not on the Hub, and it takes no paths
    assert "datasets" not in data
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    events = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    evaluated = next(e for e in reversed(events) if e["event"] == "evaluate")
    generated = next(e for e in reversed(events) if e["event"] == "generate")
    assert measured["loss"] == pytest.approx(evaluated["eval_loss"], abs=1e-6)
    assert measured["exact_match"] == pytest.approx(generated["exact_match"], abs=1e-6)
    assert measured["chrf"] == pytest.approx(generated["chrf"], abs=1e-6)
    for sample in generated["samples"]:
        assert sample["prompt"] in card.text
        assert sample["answer"] in card.text.replace("\\", "")


def test_the_card_says_hardware_versions_and_settings(finished):
    text = (finished / "README.md").read_text()
    started = next(
        json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()
    )
    assert started["machine"]["chip"] in text
    assert f"mlx {started['versions']['mlx']}" in text
    assert "| `learning_rate` | `0.01` |" in text
    assert "| `target_modules` | `o_proj, qkv_proj, gate_up_proj, down_proj` |" in text


def test_no_path_of_this_machine_is_in_it(finished):
    text = (finished / "README.md").read_text()
    assert str(finished.parent) not in text
    assert str(Path.home()) not in text


@pytest.mark.slow
def test_the_snippets_run_and_agree(finished, monkeypatch, capsys, tmp_path):
    (tmp_path / "yoda").symlink_to(finished)  # the card names the folder
    monkeypatch.chdir(tmp_path)
    card = (finished / "README.md").read_text()
    [python] = blocks(card, "python")
    exec(compile(python, "README.md", "exec"), {})
    from_peft = capsys.readouterr().out.strip()
    ours, mlx_lm = (bash(block) for block in blocks(card, "bash"))
    assert ours.strip() == from_peft != ""
    assert f"{'=' * 10}\n{from_peft}\n{'=' * 10}" in mlx_lm


def bash(block: str) -> str:
    """What a block says, its programs being those of this Python."""
    python = shlex.quote(sys.executable)
    programs = (
        f'mlx-yoda() {{ {python} -m mlx_yoda "$@"; }}\n'
        f'mlx_lm.generate() {{ {python} -m mlx_lm generate "$@"; }}\n'
        f'python() {{ {python} "$@"; }}\n'
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        ["bash", "-euc", programs + block],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_numbers_are_those_of_the_adapter_that_was_kept(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["eval_loss"] for line in lines if line["event"] == "evaluate"}
    assert lines[-1]["kept_step"] == 6
    assert f"{losses[6]:.4f}" in card_of(folder).text
    lines[-1]["kept_step"] = 3
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = card_of(folder)
    assert "weights of step 3, the best" in card.text
    assert card.data.eval_results[0].metric_value == pytest.approx(losses[3], abs=1e-6)
    assert f"{losses[3]:.4f}" in card.text
    assert f"{losses[6]:.4f}" not in card.text


def test_a_base_on_the_hub_is_linked(folder):
    change(folder / "adapter_config.json", base_model_name_or_path="owner/base")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    started = json.loads(lines[0]) | {"base_model": "owner/base", "dataset": "owner/rows"}
    (folder / "metrics.jsonl").write_text("\n".join([json.dumps(started), *lines[1:]]) + "\n")
    card = card_of(folder, license="mit")
    assert card.data.base_model == "owner/base"
    assert card.data.base_model_relation == "adapter"
    assert card.data.datasets == ["owner/rows"]
    assert card.data.license == "mit"
    assert "(https://huggingface.co/owner/base)" in card.text
    assert "(https://huggingface.co/datasets/owner/rows)" in card.text
    assert 'from_pretrained("owner/base")' in card.text
    assert card.data.eval_results[0].dataset_type == "owner/rows"


def test_a_base_in_a_folder_keeps_the_place_to_itself(folder, tmp_path):
    (tmp_path / "phi3-4bit").mkdir()
    path = str(tmp_path / "phi3-4bit")
    change(folder / "adapter_config.json", base_model_name_or_path=path)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    started = json.loads(lines[0]) | {"base_model": None, "dataset": None}
    (folder / "metrics.jsonl").write_text("\n".join([json.dumps(started), *lines[1:]]) + "\n")
    card = card_of(folder)
    assert card.data.base_model is None
    assert str(tmp_path) not in str(card)
    assert 'from_pretrained("phi3-4bit")' in card.text
    assert "put the path of" in card.text
    assert card_of(folder, base="owner/base").data.base_model == "owner/base"
    with pytest.raises(UserError, match="Hub id"):
        card_of(folder, base=path)


def test_an_adapter_without_a_run_has_a_card_too(folder):
    for name in ("config.yaml", "metrics.jsonl", "README.md"):
        (folder / name).unlink()
    card = card_of(folder, base="owner/base")
    assert card.data.eval_results is None
    assert "Measured" not in card.text
    assert "| `r` | `8` |" in card.text


def test_a_card_in_somebodys_own_words_stays(folder):
    (folder / "README.md").write_text(OWN)
    write_card(folder)
    assert (folder / "README.md").read_text() == OWN
    (folder / "README.md").write_text(f"{MARKER}\n{OWN}")
    write_card(folder)
    assert OWN not in (folder / "README.md").read_text()


def test_a_loss_that_is_no_number_is_left_out_of_the_metadata(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "evaluate":
            line["eval_loss"] = float("nan")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = {result.metric_type for result in card_of(folder).data.eval_results}
    assert metrics == {"perplexity", "exact_match", "chrf"}


@given(st.text())
def test_a_cell_is_one_line_that_means_nothing_to_markdown(text):
    shown = cell(text)
    assert "\n" not in shown
    assert len(shown) <= 480
    bare = re.sub(r"\\[\\`*_\[\]<>|~$&]", "", shown)
    assert not set(bare) & set("`*_[]<>|~$&")


@pytest.mark.slow
@given(st.text(), st.text())
def test_whatever_was_said_the_card_is_one(finished, prompt, answer):
    record = read_record(finished)
    after = record.last("generate", when="after")
    sample = {"prompt": prompt, "answer": answer, "reference": answer}
    events = [e for e in record.events if e is not after] + [{**after, "samples": [sample]}]
    record = type(record)(record.folder, record.keys, record.config, tuple(events))
    text = as_text(make_card(record, public_base(record), adapter="me/yoda"))
    again = ModelCard(text)
    assert again.data.to_dict()["library_name"] == "peft"
    assert len(blocks(text, "python")) == 1
    compile(blocks(text, "python")[0], "README.md", "exec")


def test_the_loss_picture_is_an_svg_that_the_card_shows(finished):
    picture = ElementTree.parse(finished / "loss.svg").getroot()
    assert picture.tag.endswith("svg")
    assert "![Loss" in (finished / "README.md").read_text()
    description = picture.find("{http://www.w3.org/2000/svg}desc").text
    events = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    last = [e for e in events if e["event"] == "evaluate"][-1]
    assert f"to {last['eval_loss']:.4g} at step 6" in description


def test_a_quantised_base_is_said_to_be_one(base_folder, tmp_path):
    convert(base_folder, tmp_path / "base", quantization=Quantization(4, 32))
    options = {
        "model.model_name_or_path": str(tmp_path / "base"),
        "data.dataset_name": "demo",
        "data.prompt_column": "sentence",
        "data.completion_column": "translation",
        "train.output_dir": str(tmp_path / "run"),
    }
    short = ["train.max_steps=1", "train.save_strategy=no", "train.eval_strategy=no"]
    finetune(load_config(None, short, options), reporter=lambda event: None)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "quantised to 4 bits" in card
    assert "It was not measured on held-out rows." in card
    assert "a folder on the machine that trained it" in " ".join(card.split())
    assert str(tmp_path) not in card


def test_a_base_that_is_not_quantised_is_not(finished):
    assert "quantised" not in (finished / "README.md").read_text()
