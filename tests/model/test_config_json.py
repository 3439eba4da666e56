"""config.json: numbers that no model can have are one sentence, in bounded time."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.model.config_json import read_config
from mlx_yoda.model.convert import convert
from mlx_yoda.model.families import FAMILIES
from mlx_yoda.model.load import load_lazily
from mlx_yoda.recipes.sizing import config_when_loaded
from tests.machine import within

LLAMA = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
    "rms_norm_eps": 1e-6,
}


@pytest.fixture
def folder(base_folder, tmp_path):
    return shutil.copytree(base_folder, tmp_path / "phi3")


def set_keys(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers must be a whole number from 1 to 1,024"),
        ({"num_hidden_layers": 10**10}, "not 10000000000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers must"),
        ({"num_hidden_layers": True}, "num_hidden_layers must"),
        ({"num_attention_heads": 0}, "num_attention_heads must"),
        (
            {"num_attention_heads": 3, "num_key_value_heads": 1},
            "hidden_size 32 is not a multiple of num_attention_heads 3",
        ),
        ({"num_key_value_heads": 3}, "4 is not a multiple of num_key_value_heads 3"),
        ({"sliding_window": 0}, "sliding_window must"),
        ({"rope_theta": "x"}, 'rope_theta must be a number above 0, not "x"'),
        ({"rope_scaling": "x"}, "rope_scaling must be an object"),
        ({"rope_parameters": {"factor": []}}, r"rope_parameters\.factor must be a number"),
        ({"quantization": "x"}, "quantization must be an object"),
        ({"quantization": {"bits": "4"}}, r"quantization\.bits must be a whole number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({"text_config": {"hidden_size": 0}}, r"text_config\.hidden_size must"),
        ({"model_type": None}, "names no model_type"),
        ({"layer_types": ["x" * 99] * 2 + [1]}, r"layer_types must be a list of names.*…\."),
    ],
    ids=str,
)
def test_one_sentence_wherever_it_is_read(folder, tmp_path, keys, message):
    set_keys(folder, **keys)
    for read in (
        lambda: load_lazily(folder, None, False),
        lambda: config_when_loaded(ModelConfig(model_name_or_path=str(folder))),
        lambda: convert(folder, tmp_path / "out"),
        lambda: read_config(folder),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read()
        assert str(folder / "config.json") in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "keys",
    [
        {"use_sliding_window": False, "sliding_window": 0},
        {"head_dim": None, "rope_scaling": None, "num_key_value_heads": None},
        {"head_dim": 10, "num_attention_heads": 5},
    ],
    ids=str,
)
def test_what_models_really_say_is_taken(tmp_path, keys):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | keys))
    assert read_config(tmp_path) == LLAMA | keys


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**7, 10**10, -(2**63), 1e300, 0.5, "", "x", "silu", [], [1], {}, {"a": 1}]),
)
KEYS = st.sampled_from(
    [
        *(*LLAMA, "head_dim", "num_key_value_heads", "rope_scaling", "rope_parameters"),
        *("rope_theta", "tie_word_embeddings", "hidden_act", "quantization_config", "layer_types"),
        *("sliding_window", "max_position_embeddings", "text_config", "quantization"),
    ]
)
TYPES = st.sampled_from([*FAMILIES, "gemma3", "olmo2"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    TYPES | st.sampled_from(["gemma3", "phi3", "olmo2"]), st.dictionaries(KEYS, VALUES, max_size=4)
)
def test_mutated_configurations_are_loaded_or_refused(folder, model_type, keys):
    (folder / "config.json").write_text(json.dumps(LLAMA | {"model_type": model_type} | keys))
    with within(10):
        for read in (
            lambda: load_lazily(folder, None, False),
            lambda: config_when_loaded(ModelConfig(model_name_or_path=str(folder))),
        ):
            try:
                read()
            except UserError as error:
                assert "\n" not in str(error)
