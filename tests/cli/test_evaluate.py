"""`mlx-yoda evaluate`, `convert` and `info`."""

import json
import math
import platform

import mlx.core as mx
import pytest

from mlx_yoda.cli import evaluate
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import DataConfig, ModelConfig
from mlx_yoda.report.jsonl import read


def measured(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_run_s_configuration_is_all_it_needs(invoke, trained):
    """The figures are those that training reported at its end."""
    report = measured(invoke("evaluate", "--config", trained.folder / "config.yaml", "--json"))
    events = read(trained.folder / "metrics.jsonl")
    loss = [event["eval_loss"] for event in events if event["event"] == "evaluate"][-1]
    before, after = (event for event in events if event["event"] == "generate")
    assert report["adapter_name_or_path"] == str(trained.folder)
    assert report["adapter"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert report["adapter"]["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert report["adapter"]["chrf"] == pytest.approx(after["chrf"])
    assert report["base"]["chrf"] == pytest.approx(before["chrf"])
    assert report["base"]["loss"] > report["adapter"]["loss"]
    assert (report["rows"], report["questions"], report["split"]) == (6, 6, "validation")


def test_the_table_has_the_same_figures(invoke, adapter, data):
    args = ["evaluate", "--adapter", adapter, "--data", data, "--split", "test", "--limit", 2]
    report, table = measured(invoke(*args, "--json")), invoke(*args).stdout
    base, adapted = report["base"], report["adapter"]
    assert table.split() == [
        *("base", "adapter"),
        *("loss", f"{base['loss']:.4f}", f"{adapted['loss']:.4f}"),
        *("perplexity", f"{base['perplexity']:.3f}", f"{adapted['perplexity']:.3f}"),
        *("exact", "match", f"{base['exact_match']:.3f}", f"{adapted['exact_match']:.3f}"),
        *("chrF", f"{base['chrf']:.1f}", f"{adapted['chrf']:.1f}"),
        *("2", "rows,", str(report["tokens"]), "tokens"),
    ]


def test_without_an_adapter_the_base_stands_alone(invoke, trained, data, tmp_path):
    report = measured(invoke("evaluate", "--model", "demo", "--data", data, "--json"))
    assert report["adapter"] is None
    config = (trained.folder / "config.yaml").read_text()
    (tmp_path / "c.yaml").write_text(config.replace(str(trained.folder), str(tmp_path / "none")))
    result = invoke("evaluate", "--config", tmp_path / "c.yaml")
    assert result.exit_code == 0
    assert "adapter" not in result.stdout
    assert "measuring the base alone" in result.stderr


def test_a_model_may_be_named_in_any_way(invoke, adapter, data, base_folder):
    """Another base than the adapter's: refused for its shapes, so it was the one taken."""
    args = ["evaluate", "--adapter", adapter, "--data", data]
    for named in (["--model", base_folder], ["--set", f"model.model_name_or_path={base_folder}"]):
        result = invoke(*args, *named)
        assert result.exit_code == 2
        assert "made for another model" in result.stderr


def test_a_file_that_names_no_model_leaves_the_adapters_base(invoke, adapter, data, tmp_path):
    (tmp_path / "c.yaml").write_text(f"data:\n  dataset_name: {data}\n")
    args = ["evaluate", "--config", tmp_path / "c.yaml", "--adapter", adapter, "--limit", 1]
    assert measured(invoke(*args, "--json"))["adapter"]
    # Its value says the word, but it names no model either.
    args[1:3] = ["--data", data, "--set", "train.output_dir=model.model_name_or_path"]
    assert measured(invoke(*args, "--json"))["adapter"]


def test_options_reach_the_configuration(invoke, data, monkeypatch):
    seen = []

    def stop(config, split, limit):
        seen.append((config, split, limit))
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_yoda.recipes.compare.read_split", stop)
    args = ["--data", data, "--split", "train", "--limit", 3, "--max-tokens", 5]
    invoke("evaluate", "--model", "demo", *args, "--set", "data.train_on=all")
    ((config, split, limit),) = seen
    assert (split, limit) == ("train", 3)
    assert config.train.generation_max_new_tokens == 5
    assert (config.data.dataset_name, config.data.train_on) == (str(data), "all")
    assert config.model.model_name_or_path == "demo"


def test_plain_text_has_a_loss_and_no_answers(invoke, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "The cat sleeps."}\n')
    args = ["evaluate", "--model", "demo", "--data", tmp_path, "--split", "train"]
    assert measured(invoke(*args, "--json"))["base"]["exact_match"] is None
    table = invoke(*args).stdout
    assert "loss" in table
    assert "chrF" not in table
    assert evaluate.command.name == "evaluate"


def test_a_converted_model_answers(invoke, tmp_path):
    result = invoke("convert", "demo", tmp_path / "q8", "--quantize", "8", "--group-size", "32")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert f"chat --model {tmp_path / 'q8'}" in result.stderr
    said = "You must find the old map."
    assert invoke("generate", "--model", tmp_path / "q8", said).stdout == f"{said}\n"
    config = json.loads((tmp_path / "q8" / "config.json").read_text())
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (8, 32)


def test_convert_casts(invoke, tmp_path):
    assert invoke("convert", "demo", tmp_path / "half", "--dtype", "float16").exit_code == 0
    weights = mx.load(str(tmp_path / "half" / "model.safetensors"))
    assert {array.dtype for array in weights.values()} == {mx.float16}


def test_info_says_what_a_bug_report_needs(invoke):
    facts = json.loads(invoke("info", "--json").stdout)
    assert facts["python"] == platform.python_version()
    assert facts["mlx"] == mx.__version__
    assert facts["metal"] is mx.metal.is_available()
    assert facts["memory_bytes"] > 1 << 28
    for name in ("chip", "os", "device", "mlx-lm", "transformers", "datasets", "safetensors"):
        assert facts[name], name
    table = dict(line.split(maxsplit=1) for line in invoke("info").stdout.splitlines())
    assert table["mlx"] == facts["mlx"]
    assert table["memory"] == f"{facts['memory_bytes'] / 1e9:.1f} GB"
    assert table["metal"] == ("yes" if facts["metal"] else "no")


def settings_seen(invoke, monkeypatch, *args):
    """The configuration that rows are read with, and what is said on the way."""
    seen = []

    def stop(config, split, limit):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_yoda.recipes.compare.read_split", stop)
    said = invoke("evaluate", *args).stderr.strip()  # Ctrl-C ends the line
    return (*seen, said)


RUN = """\
model: {model_name_or_path: nowhere, quantization: 4, trust_remote_code: true}
data: {dataset_name: mine.jsonl, prompt_column: q, completion_column: a, max_length: 64}
train: {generation_max_new_tokens: 7, output_dir: elsewhere, seed: 5}
"""


@pytest.mark.parametrize("place", ["run", "run/checkpoint-4"])
def test_an_adapter_brings_the_data_and_settings_of_its_run(invoke, monkeypatch, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    file = tmp_path / "run" / "config.yaml"
    file.write_text(RUN)
    config, said = settings_seen(invoke, monkeypatch, "--adapter", tmp_path / place)
    assert f"Data and settings are those of {file}; --data, --set and --config change" in said
    assert config.data == load_config(file).data
    assert config.train == load_config(file).train
    assert config.model.quantization.bits == 4
    assert not config.model.trust_remote_code  # an adapter's word is not enough


def test_what_the_user_sets_goes_before_the_run_s_settings(invoke, monkeypatch, tmp_path):
    (tmp_path / "config.yaml").write_text(RUN)
    args = ("--adapter", tmp_path, "--set", "data.max_length=1024", "--set", "train.seed=42")
    config, _ = settings_seen(invoke, monkeypatch, *args, "--max-tokens", 64, "--model", "demo")
    assert (config.data.max_length, config.train.seed) == (1024, 42)  # although they are defaults
    assert config.data.prompt_column == "q"
    assert config.train.generation_max_new_tokens == 64
    assert config.model == ModelConfig(model_name_or_path="demo")
    other, said = settings_seen(invoke, monkeypatch, "--adapter", tmp_path, "--data", "x.jsonl")
    assert said.startswith("Settings are those of")
    assert other.data == DataConfig(dataset_name="x.jsonl", max_length=64)
    file = tmp_path / "c.yaml"
    file.write_text("data: {dataset_name: y.jsonl}\n")
    told, said = settings_seen(invoke, monkeypatch, "--adapter", tmp_path, "--config", file)
    assert told == load_config(file)
    assert said == ""


def test_an_adapter_without_a_run_takes_nothing_from_the_folder_around_it(
    invoke, monkeypatch, tmp_path
):
    (tmp_path / "config.yaml").write_text(RUN)
    (tmp_path / "exported").mkdir()
    args = ("--adapter", tmp_path / "exported", "--data", "x.jsonl")
    config, said = settings_seen(invoke, monkeypatch, *args)
    assert (config.data, said) == (DataConfig(dataset_name="x.jsonl"), "")


def test_data_that_is_not_here_is_told_from_where_it_is_named(invoke, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(RUN)
    result = invoke("evaluate", "--adapter", tmp_path)
    assert result.exit_code == 2
    assert "mine.jsonl" in result.stderr
    assert f"The data is named in {file}" in result.stderr
    file.write_text("lora: {r: x}\n")
    assert f"{file}:1: lora.r must be" in invoke("evaluate", "--adapter", tmp_path).stderr
