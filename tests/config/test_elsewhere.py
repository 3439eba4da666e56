"""Files and names of other programs are recognised, and answered with ours."""

import re

import pytest

from mlx_yoda.config.elsewhere import ELSEWHERE
from mlx_yoda.config.keys import counterpart, keys
from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError

MLX_LM = """\
model: demo
train: true
data: demo
iters: 5
batch_size: 2
num_layers: 4
learning_rate: 1e-4
lora_parameters: {rank: 8, scale: 20.0, dropout: 0.0}
"""
TRL = "model_name_or_path: demo\ndataset_name: demo\nlearning_rate: 2.0e-4\nlora_r: 16\n"


def refusal(tmp_path, text):
    file = tmp_path / "theirs.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        load_config(file)
    message = str(refused.value)
    assert message.startswith(str(file))
    return message


def written(message):
    """What the message says to write: their name → our key."""
    return dict(re.findall(r"([\w.]+) → (\w+\.\w+)", message))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_name_leads_to_a_key_whose_value_is_read(name):
    key, equals, _ = ELSEWHERE[name].partition("=")
    assert key in keys()
    if equals:
        load_config(None, [ELSEWHERE[name]])


def test_our_own_names_go_before_those_of_others():
    for key in keys().values():
        assert counterpart(key.name) == key.path
    assert counterpart("no_such_name") is None


def test_a_file_of_mlx_lm_is_named_and_each_key_told(tmp_path):
    message = refusal(tmp_path, MLX_LM)
    assert "this is mlx-lm's configuration, and here keys stand in sections" in message
    assert written(message) == {
        "model": "model.model_name_or_path",
        "data": "data.dataset_name",
        "iters": "train.max_steps",
        "batch_size": "train.per_device_train_batch_size",
        "learning_rate": "train.learning_rate",
        "lora_parameters.rank": "lora.r",
        "lora_parameters.scale": "lora.lora_alpha",
        "lora_parameters.dropout": "lora.lora_dropout",
    }
    assert "lora.lora_alpha (scale * rank)" in message
    assert message.endswith("Nothing here stands for train, num_layers.")


def test_a_file_of_trl_is_named_and_each_key_told(tmp_path):
    message = refusal(tmp_path, TRL)
    assert "this is TRL's or Transformers' configuration" in message
    assert written(message) == {
        "model_name_or_path": "model.model_name_or_path",
        "dataset_name": "data.dataset_name",
        "learning_rate": "train.learning_rate",
        "lora_r": "lora.r",
    }
    assert "Nothing here" not in message


def test_a_value_that_alone_means_the_same_is_told(tmp_path):
    message = refusal(tmp_path, "mask_prompt: true\nload_in_4bit: true\n")
    assert "mask_prompt → data.train_on: completions" in message
    assert "load_in_4bit → model.quantization: {bits: 4}" in message


def test_a_file_of_an_unknown_program_is_told_what_is_known(tmp_path):
    message = refusal(tmp_path, "base_model: x\nsequence_len: 5\nflash: 1\n")
    assert "another program's configuration" in message
    assert written(message) == {
        "base_model": "model.model_name_or_path",
        "sequence_len": "data.max_length",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora: {r: 4}\nlearning_rate: 1\n", r":2: there is no section learning_rate"),
        ("learning_rate: 1\n", r":1: there is no section learning_rate"),
        ("lora:\nlearning_rate: 1\n", r":2: there is no section learning_rate"),
        ("a: 1\nb: 2\n", r":1: there is no section a"),
    ],
)
def test_a_file_of_ours_with_a_stray_key_is_told_its_line(tmp_path, text, message):
    assert re.search(message, refusal(tmp_path, text))
