"""The whole way, and the promise that a resumed run is the run that never stopped."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from mlx_yoda.config import Config
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.model.load import resolve
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.overwriting import WRITTEN_FILE

TIMES = {"seconds", "input_tokens_per_second", "supervised_tokens_per_second", "train_runtime"}
TIMES |= {"peak_memory", "path", "output_dir"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """26 short questions and answers."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = [{"prompt": n * (1 + i % 5), "completion": f"{n} it is"} for i, n in enumerate(names)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def configure(base: Path, rows: Path, output: Path, *overrides: str) -> Config:
    options = {
        "model.model_name_or_path": str(base),
        "data.dataset_name": str(rows),
        "train.output_dir": str(output),
    }
    small = [
        "lora.lora_dropout=0.2",
        "data.validation_split=0.2",
        "train.per_device_train_batch_size=2",
        "train.gradient_accumulation_steps=2",
        "train.num_train_epochs=2",
        "train.learning_rate=1e-2",
        "train.logging_steps=2",
        "train.save_strategy=steps",
        "train.save_steps=1",
        "train.save_total_limit=null",
    ]
    return load_config(None, [*small, *overrides], options)


def run(config: Config, **how) -> list:
    events: list = []
    finetune(config, reporter=events.append, **how)
    return events


def metrics(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.fixture(scope="module")
def whole(base_folder, rows, tmp_path_factory) -> Path:
    """A run that was never stopped, with a checkpoint after every step."""
    output = tmp_path_factory.mktemp("whole") / "run"
    run(configure(base_folder, rows, output))
    return output


@pytest.mark.slow
def test_a_run_leaves_an_adapter_checkpoints_metrics_and_its_configuration(whole):
    names = {path.name for path in whole.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.yaml"} <= names
    assert {f"checkpoint-{step}" for step in range(1, 13)} <= names
    assert [name for name in names if name.startswith(".")] == [WRITTEN_FILE]
    events = metrics(whole)
    assert [e["step"] for e in events if e["event"] == "step"] == [2, 4, 6, 8, 10, 12]
    assert [e["step"] for e in events if e["event"] == "evaluate"] == [6, 12]
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "finished"
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert losses[-1] < losses[0]
    assert load_config(whole / "config.yaml").train.num_train_epochs == 2


def test_repeating_a_run_from_its_configuration_gives_the_same_bits(whole, tmp_path):
    config = load_config(whole / "config.yaml", options={"train.output_dir": str(tmp_path / "b")})
    run(config)
    assert contents(tmp_path / "b") == contents(whole)
    assert metrics(tmp_path / "b") == metrics(whole)


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", range(1, 13))
def test_a_resumed_run_is_the_run_that_never_stopped(whole, tmp_path, stopped_after):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    for path in output.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > stopped_after:
            shutil.rmtree(path)
    for path in output.glob("adapter*"):
        path.unlink()
    config = load_config(whole / "config.yaml", options={"train.output_dir": str(output)})
    run(config, resume=True)
    assert contents(output) == contents(whole)
    again = [event for event in metrics(output) if event["event"] != "started"]
    assert again == [event for event in metrics(whole) if event["event"] != "started"]


def test_only_so_many_checkpoints_are_kept(base_folder, rows, tmp_path):
    config = configure(
        base_folder, rows, tmp_path / "run", "train.save_total_limit=2", "train.max_steps=4"
    )
    run(config)
    found = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert found == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=5e-3", "train.learning_rate was 0.01 and is 0.005"),
        ("train.seed=1", "train.seed was 42 and is 1"),
        ("data.validation_split=0.1", "the training rows was"),
        ("lora.lora_alpha=3", "lora.lora_alpha was 16"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(base_folder, rows, whole, tmp_path, override, said):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    before = contents(output), metrics(output)
    with pytest.raises(UserError) as error:
        run(configure(base_folder, rows, output, override), resume=True)
    assert said in str(error.value)
    assert (contents(output), metrics(output)) == before


def test_a_folder_with_something_in_it_is_refused_and_not_touched(base_folder, rows, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    config = configure(base_folder, rows, output, "train.max_steps=1")
    with pytest.raises(UserError, match="not empty"):
        run(config)
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    run(config, overwrite=True)
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "adapter_model.safetensors").exists()
    run(config, overwrite=True)
    assert len([e for e in metrics(output) if e["event"] == "started"]) == 1


def test_nothing_to_resume_is_an_error(base_folder, rows, tmp_path):
    config = configure(base_folder, rows, tmp_path / "run")
    with pytest.raises(UserError, match="no checkpoint"):
        run(config, resume=True)
    assert not (tmp_path / "run").exists()


def test_rows_too_long_are_cut_counted_and_said_once(base_folder, rows, tmp_path):
    config = configure(
        base_folder, rows, tmp_path / "run", "train.max_steps=1", "data.max_length=12"
    )
    notes = [e.message for e in run(config) if e.name == "note"]
    assert len([note for note in notes if "training rows are longer" in note]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_bases_train(base_folder, rows, tmp_path, dtype):
    config = configure(
        base_folder, rows, tmp_path / "run", f"model.dtype={dtype}", "train.save_strategy='no'"
    )
    run(config)
    losses = [e["loss"] for e in metrics(tmp_path / "run") if e["event"] == "step"]
    assert losses[-1] < losses[0]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory) -> Path:
    """A random Llama with the demo's tokenizer."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": 768,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
    }
    folder = tmp_path_factory.mktemp("llama")
    for file in resolve("demo").glob("tokenizer*"):
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    return folder


@pytest.mark.slow
def test_another_architecture_trains_too(llama_folder, rows, tmp_path):
    targets = "lora.target_modules=[q_proj, v_proj, down_proj]"
    run(configure(llama_folder, rows, tmp_path / "run", targets))
    losses = [e["loss"] for e in metrics(tmp_path / "run") if e["event"] == "step"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_bases_train(base_folder, rows, tmp_path, bits):
    convert(base_folder, tmp_path / "base", quantization=Quantization(bits, 32))
    run(configure(tmp_path / "base", rows, tmp_path / "run", "train.save_strategy='no'"))
    losses = [e["loss"] for e in metrics(tmp_path / "run") if e["event"] == "step"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_only_the_upper_layer_trains_and_resumes_to_the_same_bits(base_folder, rows, tmp_path):
    config = configure(base_folder, rows, tmp_path / "run", "lora.layers_to_transform=[1]")
    run(config)
    whole = contents(tmp_path / "run")
    for step in range(6, 13):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    run(config, resume=True)
    assert contents(tmp_path / "run") == whole
