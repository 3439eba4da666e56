"""Every field of the configuration can be set by its option, and arrives."""

from dataclasses import asdict, fields

import click
import pytest
from click.testing import CliRunner

from mlx_yoda.cli.settings import all_settings, config_options, configuration, is_chosen, settings
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import Config

# A value for each field that is not its default: as written after the option, as it arrives.
OTHER = {
    "model.model_name_or_path": ("12", "12"),
    "model.model_revision": ("null", "null"),
    "model.dtype": ("bfloat16", "bfloat16"),
    "model.quantization": ("8", {"bits": 8, "group_size": None, "mode": "affine"}),
    "model.trust_remote_code": (True, True),
    "lora.r": ("16", 16),
    "lora.lora_alpha": ("4.5", 4.5),
    "lora.lora_dropout": ("0", 0.0),
    "lora.target_modules": (r".*\.(qkv_proj|o_proj)", r".*\.(qkv_proj|o_proj)"),
    "lora.exclude_modules": ("[down_proj, o_proj]", ["down_proj", "o_proj"]),
    "lora.layers_to_transform": ("[0, 3]", [0, 3]),
    "lora.use_rslora": (True, True),
    "lora.use_dora": (True, True),
    "lora.init_lora_weights": ("pissa", "pissa"),
    "model.init_adapter": ("a/b", "a/b"),
    "train.loraplus_lr_ratio": ("16", 16.0),
    "lora.rank_pattern": ("{qkv_proj: 2}", {"qkv_proj": 2}),
    "lora.alpha_pattern": ("{qkv_proj: 2}", {"qkv_proj": 2.0}),
    "data.dataset_name": ("a b: c.csv", "a b: c.csv"),
    "data.dataset_config": ("default", "default"),
    "data.prompt_column": ("1e3", "1e3"),
    "data.completion_column": ("true", "true"),
    "data.messages_column": ("m", "m"),
    "data.text_column": ("t", "t"),
    "data.train_on": ("all", "all"),
    "data.validation_split": ("1e-1", 0.1),
    "data.max_length": ("64", 64),
    "data.packing": ("concat", "concat"),
    "train.output_dir": ("x=y", "x=y"),
    "train.num_train_epochs": ("2.5", 2.5),
    "train.max_steps": ("3", 3),
    "train.per_device_train_batch_size": ("5", 5),
    "train.per_device_eval_batch_size": ("5", 5),
    "train.gradient_accumulation_steps": ("5", 5),
    "train.auto_find_batch_size": (False, False),
    "train.gradient_checkpointing": ("false", False),
    "train.learning_rate": ("1e-5", 1e-5),
    "train.lr_scheduler_type": ("cosine", "cosine"),
    "train.warmup_steps": ("5", 5),
    "train.warmup_ratio": (".5", 0.5),
    "train.weight_decay": ("0.1", 0.1),
    "train.adam_beta1": ("0.8", 0.8),
    "train.adam_beta2": ("0.8", 0.8),
    "train.adam_epsilon": ("1e-6", 1e-6),
    "train.max_grad_norm": ("0", 0.0),
    "train.logging_steps": ("5", 5),
    "train.eval_strategy": ("no", "no"),
    "train.eval_steps": ("5", 5),
    "train.save_strategy": ("no", "no"),
    "train.save_steps": ("5", 5),
    "train.save_total_limit": ("null", None),
    "train.stop_on_save_error": (True, True),
    "train.load_best_model_at_end": (True, True),
    "train.metric_for_best_model": ("exact_match", "exact_match"),
    "train.greater_is_better": ("true", True),
    "train.early_stopping_patience": ("5", 5),
    "train.early_stopping_threshold": ("0.5", 0.5),
    "train.report_to": ("[tensorboard, trackio]", ["tensorboard", "trackio"]),
    "train.run_name": ("first", "first"),
    "train.project": ("jedi", "jedi"),
    "train.predict_with_generate": (True, True),
    "train.generation_max_new_tokens": ("5", 5),
    "train.compile": ("true", True),
    "train.seed": ("5", 5),
}
ONLY_ONE = {"lora.bias", "lora.task_type", "train.optim"}  # there is nothing else to set
SHORT = {
    "model.model_name_or_path": "--model",
    "model.quantization": "--quantize",
    "data.dataset_name": "--data",
}


def parsed(args, *keys):
    """The configuration that a command with all settings, or these, makes of its arguments."""
    seen = []

    @click.command()
    @config_options
    @(settings(*keys) if keys else all_settings())
    def command(file, overrides):
        seen.append((configuration(file, overrides), is_chosen("lora.r")))

    CliRunner().invoke(command, args, catch_exceptions=False, standalone_mode=False)
    return seen[0]


def option(key, value):
    name = SHORT.get(key, "--" + key.split(".")[1].replace("_", "-"))
    if isinstance(value, bool):
        return [name if value else f"--no-{name[2:]}"]
    return [name, value]


def value_at(config, key):
    section, name = key.split(".")
    return asdict(config)[section][name]


def test_the_table_has_every_field():
    known = {f"{part.name}.{field.name}" for part in fields(Config) for field in fields(part.type)}
    assert known == OTHER.keys() | ONLY_ONE


@pytest.mark.parametrize("key", OTHER)
def test_a_field_s_option_arrives_and_changes_nothing_else(key):
    written, wanted = OTHER[key]
    config, _ = parsed(option(key, written))
    assert value_at(config, key) == wanted != value_at(Config(), key)
    assert type(value_at(config, key)) is type(wanted)
    section, name = key.split(".")
    back = asdict(config) | {section: asdict(config)[section] | {name: value_at(Config(), key)}}
    assert back == asdict(Config())


def test_without_options_there_are_the_defaults():
    assert parsed([]) == (Config(), False)


@pytest.mark.parametrize("key", sorted(ONLY_ONE))
def test_the_only_value_is_accepted(key):
    config, _ = parsed(option(key, value_at(Config(), key)))
    assert config == Config()


def test_options_win_over_set_and_set_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lora: {r: 2, lora_alpha: 2, lora_dropout: 0.2}\n")
    args = ["--lora-alpha", "4", "--config", str(file), "--set", "lora.lora_alpha=3"]
    config, chosen = parsed([*args, "--set", "lora.r=3", "--set", "lora.r=3"])
    assert (config.lora.lora_dropout, config.lora.r, config.lora.lora_alpha) == (0.2, 3, 4)
    assert not chosen  # --set is no option of its own
    assert parsed(["--r", "9"])[1]


def test_a_switch_can_be_turned_off_again(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lora: {use_rslora: true}\n")
    assert load_config(file).lora.use_rslora
    assert not parsed(["--config", str(file), "--no-use-rslora"])[0].lora.use_rslora


def test_a_command_may_have_some_settings_only():
    assert parsed(["--r", "3"], "lora.r")[0].lora.r == 3
    with pytest.raises(click.NoSuchOption):
        parsed(["--lora-alpha", "3"], "lora.r")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "--lr", "1e-4"), "There is no option --lr: write --learning-rate."),
        (("train", "--iters=5"), "--iters: write --max-steps."),
        (("train", "--batch-size", "4"), "--batch-size: write --per-device-train-batch-size."),
        (("train", "--rank", "8"), "--rank: write --r."),
        (("train", "--load-in-4bit"), "--load-in-4bit: write --quantize '{bits: 4}'."),
        (("plan", "--load_in_4bit"), "write --quantize '{bits: 4}'."),
        (("plan", "--lr", "1"), "--lr: write --set train.learning_rate=VALUE."),
        (("plan", "--learning-rate", "1"), "write --set train.learning_rate=VALUE."),
        (("evaluate", "--mask-prompt"), "write --set data.train_on=completions."),
        (("train", "--no-gradient-checkpointing"), "write --gradient-checkpointing false."),
        (("convert", "x", "y", "--load-in-8bit"), "write --quantize '{bits: 8}'."),
        (("generate", "--lr", "1"), "No such option"),
        (("train", "--nonsense"), "No such option"),
    ],
)
def test_an_option_that_others_have_is_answered_with_ours(invoke, args, message):
    result = invoke(*args)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--learning-rate", "abc"), "--learning-rate: train.learning_rate must be a finite"),
        (("--learning_rate", "abc"), "--learning-rate: train.learning_rate must be a finite"),
        (("--quantize", "{bits: x}"), "--quantize: model.quantization.bits must be a whole"),
        (("--model", ""), "--model: model.model_name_or_path must be not empty"),
        (("--set", "lora.r=x"), "--set lora.r=x: lora.r must be a whole number"),
        (("--set", "lora.rank=4"), "it is called lora.r here"),
        (("--auto_find_batch_size", "true"), "--auto-find-batch-size takes no value"),
    ],
)
def test_a_wrong_value_is_blamed_on_the_option_that_has_it(invoke, args, message):
    result = invoke("train", *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_underscores_are_dashes(invoke, tmp_path):
    known = invoke("train", "--learning_rate", "1e-3", "--output_dir", tmp_path, "--r", "0")
    assert "lora.r must be from 1 to 65536" in known.stderr
