"""What a config.json sets that is not computed here, held against Transformers."""

import json
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3Config, Gemma3ForConditionalGeneration

from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.errors import UserError
from mlx_yoda.model.departures import departures, exact_up_to, notes, refuse_departures
from mlx_yoda.model.families import FAMILIES
from mlx_yoda.model.limits import Limits
from mlx_yoda.model.load import load_lazily
from mlx_yoda.recipes.dataset import check_rows
from mlx_yoda.recipes.sizing import config_when_loaded
from tests.model.families import GEMMA3, LLAMA3, SIZES

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers.*")

TOKENS = np.random.default_rng(0).integers(3, 200, (1, 40))
SMALL = SIZES | {"vocab_size": 200, "num_hidden_layers": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 9, "long_factor": [2.0] * 9}
LINEAR = {"rope_type": "linear", "factor": 8.0}
BY_LAYER = {
    "full_attention": {**LINEAR, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
# Read by Transformers, and of no consequence for the logits.
HARMLESS = {
    *("initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id"),
    *("pretraining_tp", "attention_dropout", "resid_pdrop", "embd_pdrop", "output_attentions"),
    *("_name_or_path", "model_type", "_sliding_window_pattern"),
    *PreTrainedConfig().to_dict(),
}
ELSEWHERE = {
    *("rope_parameters", "sliding_window", "use_sliding_window", "max_window_layers"),
    "layer_types",
}


def write(folder, model_type, keys, *, saved=None):
    """A random model with what config.json is to say; by Transformers, or as it is."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(folder)
    if saved is not None:
        (folder / "config.json").write_text(json.dumps(saved | {"model_type": model_type}))
    return model


def distance(folder, theirs, ids=TOKENS):
    ours, _ = load_lazily(folder, None, False)
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids)).logits.numpy()
    return np.abs(np.array(ours(mx.array(ids))) - wanted).max()


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "phi3"])
def test_the_table_is_transformers(model_type):
    """Its defaults, and no key that is in neither list; a new one has to be looked at."""
    family, theirs = FAMILIES[model_type], AutoConfig.for_model(model_type).to_dict()
    for key, default in family.honoured.items():
        derived = key in ("num_key_value_heads", "head_dim") and default is None
        assert derived or theirs[key] == default, key
    for key, values in family.fixed.items():
        assert theirs[key] == values[0], key
    unknown = theirs.keys() - family.honoured.keys() - family.fixed.keys() - HARMLESS - ELSEWHERE
    if model_type == "gemma3_text":
        unknown -= {"tie_word_embeddings"}
    assert not unknown


HONOURED = {
    "tied": ("llama", {}, {"tie_word_embeddings": True}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}, {}),
    "linear": ("llama", {"rope_parameters": {**LINEAR, "rope_theta": 1e4}}, {}),
    "yarn": ("llama", {"rope_parameters": {**YARN, "rope_theta": 1e4}}, {}),
    "yarn, both mscales": (
        "qwen3",
        {"head_dim": 24, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.8}},
        {},
    ),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "Gemma 3, by layer": ("gemma3_text", GEMMA3 | {"rope_parameters": BY_LAYER}, {}),
    "Gemma 3, own period": ("gemma3_text", GEMMA3 | {"sliding_window_pattern": 3}, {}),
}


@pytest.mark.parametrize("name", HONOURED)
def test_what_is_honoured_is_computed_as_in_transformers(tmp_path, name):
    model_type, keys, more = HONOURED[name]
    theirs = write(tmp_path, model_type, SMALL | keys | more)
    config = json.loads((tmp_path / "config.json").read_text())
    assert departures(config) == []
    assert notes(config, "x") == []
    assert distance(tmp_path, theirs) < 1e-4


def test_before_transformers_5_gemma_3_said_it_elsewhere(tmp_path):
    theirs = write(
        tmp_path,
        "gemma3_text",
        SMALL | GEMMA3 | {"vocab_size": 200, "rope_parameters": BY_LAYER},
        saved=SMALL | GEMMA3 | {"vocab_size": 200, "rope_scaling": LINEAR, "rope_theta": 1e6},
    )
    assert distance(tmp_path, theirs) < 1e-4


def test_the_text_part_of_an_image_text_model_is_read(tmp_path):
    torch.manual_seed(0)
    text = Gemma3TextConfig(**GEMMA3 | {"vocab_size": 200, "rope_parameters": BY_LAYER})
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 1, "image_size": 16, "patch_size": 8}
    config = Gemma3Config(text_config=text.to_dict(), vision_config=vision)
    theirs = Gemma3ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    assert distance(tmp_path, theirs) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gemma_3_scales_by_what_its_dtype_rounds(tmp_path, dtype):
    theirs = write(tmp_path, "gemma3_text", SMALL | GEMMA3 | {"vocab_size": 200})
    ours, _ = load_lazily(tmp_path, str(dtype).removeprefix("torch."), False)
    scaled = ours._corrected(ours.model.embed_tokens(mx.array(TOKENS)))
    scaled = scaled * mx.array(ours.args.hidden_size**0.5, mx.bfloat16).astype(scaled.dtype)
    with torch.no_grad():
        wanted = theirs.to(dtype).model.embed_tokens(torch.tensor(TOKENS)).float().numpy()
    off = np.abs(np.array(scaled.astype(mx.float32)) - wanted).max() / np.abs(wanted).max()
    assert off < (1e-3 if dtype == torch.float16 else 1e-6)


# What is set, and from how many tokens on it shows, if not at once.
DEPARTURES = {
    "llama, hidden_act": ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu' ('silu' is)"),
    "phi3, hidden_act": ("phi3", {"hidden_act": "gelu"}, "hidden_act 'gelu' ('silu' is)"),
    "longrope": (
        "llama",
        {"rope_parameters": LONG | {"original_max_position_embeddings": 256}},
        "rope_type 'longrope'",
    ),
    "attention_factor": (
        "llama",
        {"rope_parameters": YARN | {"attention_factor": 2.0}},
        "factor 2",
    ),
    "truncate": ("llama", {"rope_parameters": YARN | {"truncate": False}}, "truncate False"),
    "final soft cap": (
        "gemma3_text",
        GEMMA3 | {"final_logit_softcapping": 1.0},
        "final_logit_softcapping 1.0",
    ),
    "bidirectional": (
        "gemma3_text",
        GEMMA3 | {"use_bidirectional_attention": True},
        "use_bidirectional_attention True",
    ),
    "own layers": (
        "gemma3_text",
        GEMMA3 | {"layer_types": ["full_attention"] * 5 + ["sliding_attention"]},
        "layer_types",
    ),
    "gemma2, linear": ("gemma2", {"head_dim": 24, "rope_parameters": LINEAR}, "rope_type 'linear'"),
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_what_is_not_computed_is_refused_for_training_and_named_otherwise(tmp_path, name):
    model_type, keys, said = DEPARTURES[name]
    theirs = write(tmp_path, model_type, SMALL | keys)
    assert distance(tmp_path, theirs) > 1e-3, "a key that may be honoured"
    with pytest.raises(UserError, match="cannot be trained or planned") as caught:
        config_when_loaded(ModelConfig(model_name_or_path=str(tmp_path)))
    assert said in str(caught.value)
    (note,) = notes(json.loads((tmp_path / "config.json").read_text()), "x")
    assert said in note


WINDOWS = {
    "mistral": {"sliding_window": 16},
    "qwen2": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0},
    "qwen3": {
        "sliding_window": 16,
        "use_sliding_window": True,
        "layer_types": ["sliding_attention"],
    },
    "gemma2": {"sliding_window": 16, "head_dim": 24},
}


@pytest.mark.parametrize("model_type", WINDOWS)
def test_rows_are_exact_up_to_a_window_and_refused_beyond(tmp_path, model_type):
    theirs = write(tmp_path, model_type, SMALL | WINDOWS[model_type])
    config = json.loads((tmp_path / "config.json").read_text())
    assert exact_up_to(config) == (16, "sliding_window")
    assert distance(tmp_path, theirs, TOKENS[:, :16]) < 1e-4
    assert distance(tmp_path, theirs) > 0.01
    check_exact(rows(16), config)
    with pytest.raises(UserError, match=r"17 tokens.*sliding_window.*data\.max_length=16"):
        check_exact(rows(17), config)
    (note,) = notes(config, "it")
    assert note.startswith("Beyond 16 tokens it answers otherwise")


def check_exact(rows, config):
    check_rows(rows, Limits(None, None, None, exact_up_to(config)), None)


def rows(length):
    row = Packed(np.zeros(length, np.int32), np.ones(length, bool), (length,))
    return PackedRows.of([row])


@pytest.mark.parametrize(
    ("model_type", "keys", "limit"),
    [
        ("mistral", {}, 4096),  # Transformers' default
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 16}, None),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": True}, None),  # from layer 28 on
        ("llama", {"sliding_window": 16, "layer_types": ["sliding_attention"]}, None),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 512),
        ("gemma3_text", {"sliding_window": 16}, None),
        ("phi3", {"sliding_window": 16}, None),
        ("olmo2", {"sliding_window": 16}, None),
    ],
)
def test_only_windows_that_matter_bound_rows(model_type, keys, limit):
    config = SMALL | keys | {"model_type": model_type}
    found = exact_up_to(config)
    assert (found and found[0]) == limit
    check_exact(rows(600 if limit is None else limit), config)


def test_what_transformers_does_not_read_is_not_given_to_mlx_lm(tmp_path):
    """mlx-lm's llama has windows and a bias that Transformers' Llama does not know."""
    foreign = {"layer_types": ["sliding_attention"], "sliding_window": 4, "rope_traditional": True}
    theirs = write(tmp_path, "llama", SMALL, saved=SMALL | foreign)
    assert distance(tmp_path, theirs) < 1e-4


def test_gemma_2_without_soft_caps_is_one_sentence(tmp_path):
    write(tmp_path, "gemma2", SMALL | {"head_dim": 24, "attn_logit_softcapping": None})
    with pytest.raises(UserError, match="attn_logit_softcapping to null"):
        load_lazily(tmp_path, None, False)


def test_scaling_without_its_factor_is_one_sentence(tmp_path):
    write(tmp_path, "llama", SMALL, saved=SMALL | {"rope_scaling": {"type": "linear"}})
    with pytest.raises(UserError, match="turns positions by 'linear' but gives no factor"):
        load_lazily(tmp_path, None, False)


def test_a_family_that_is_not_checked_says_so_and_trains():
    config = {"model_type": "olmo2", "hidden_act": "gelu"}
    refuse_departures(config, "x")
    (note,) = notes(config, "x")
    assert "model_type olmo2) is not checked" in note


def test_other_families_read_transformers_5_in_the_text_part_too():
    from mlx_yoda.model.rotary import as_before_5

    text = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}}
    found = as_before_5({"model_type": "mistral3", "text_config": text | {"hidden_size": 3}})
    inner = SimpleNamespace(**found["text_config"])
    assert (inner.rope_theta, inner.rope_scaling["factor"], inner.hidden_size) == (7.0, 2.0, 3)
