"""What a model can be given: rows of its embedding, positions of its config.json."""

import copy
import shutil
from types import SimpleNamespace

import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken

from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.packing import pack
from mlx_yoda.errors import UserError
from mlx_yoda.generation import prompt_tokens
from mlx_yoda.model.limits import Limits, check_tokenizer, limits_of, limits_of_phi3
from mlx_yoda.model.load import load
from mlx_yoda.recipes.dataset import check_rows
from tests.model import phi3_configs as configs

ROWS = 768  # of the demo's embedding, one for each of its tokenizer's tokens
FREE = Limits(ROWS, None, None)


@pytest.fixture(scope="module")
def base():
    return load("demo")


@pytest.fixture(scope="module")
def wide(base):
    """The demo's tokenizer with two tokens more than its model has rows."""
    tokenizer = copy.deepcopy(base.tokenizer._tokenizer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<one>", "<two>")])
    return TokenizerWrapper(tokenizer)


def test_the_demo_s_limits(base):
    assert base.limits == Limits(ROWS, 512, None) == limits_of_phi3(base.config)


@pytest.mark.parametrize("name", configs.PHI)
def test_a_phi_3_that_is_not_loaded_has_the_published_limits(name):
    config = configs.PHI[name]
    short = config["original_max_position_embeddings"] if config["rope_scaling"] else None
    limits = Limits(config["vocab_size"], config["max_position_embeddings"], short)
    assert limits_of_phi3(config) == limits


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
POSITIONS = [
    ({"max_position_embeddings": 4096}, 4096),
    ({"max_position_embeddings": 32768, "sliding_window": 4096}, 32768),
    ({"n_positions": 1024}, 1024),
    ({"max_position_embeddings": None}, None),
    ({}, None),
    ({"text_config": {"max_position_embeddings": 2048}}, 2048),
    # Qwen's advice for long texts leaves max_position_embeddings alone; others scale it.
    ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),
    ({"max_position_embeddings": 131072, "rope_scaling": YARN}, 131072),
    ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2}}, 8192),
    ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default"}}, 4096),
    ({"max_position_embeddings": 131072, "rope_scaling": LLAMA3}, 131072),
    (
        {
            "model_type": "gemma3_text",
            "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        131072,
    ),
]


@pytest.mark.parametrize(("config", "context"), POSITIONS)
def test_positions_by_any_name_and_stretched_ones(config, context):
    assert limits_of(nn.Module(), config) == Limits(None, context, None)


def test_the_table_of_tokens_is_told_from_that_of_positions():
    model = nn.Module()
    model.wpe, model.wte = nn.Embedding(1024, 32), nn.Embedding(256, 32).to_quantized(32, 4)
    assert limits_of(model, {}).vocabulary == 256


PARTS = st.lists(st.sampled_from(["<one>", "<two>", "here", " am I. ", "<|end|>", "<s>", "é"]))


@given(PARTS, st.booleans(), st.sampled_from(["all", "completions"]))
def test_no_id_without_a_row_reaches_a_model(wide, parts, as_text, train_on):
    """Whatever a text spells out: its rows and its prompt are refused, or fit the embedding."""
    text, beyond = "x" + "".join(parts), {"<one>", "<two>"} & {*parts}
    messages = ({"role": "user", "content": text}, {"role": "assistant", "content": "yes"})
    row = Conversation(None if as_text else messages, text if as_text else None, "x:1")
    encoded = encode([row], wide, train_on=train_on, max_length=None)
    rows = pack(encoded.examples, "none", 10**6)
    prompt = prompt_tokens(wide, [{"role": "user", "content": text}])
    ids = np.concatenate([rows[0].tokens, prompt])
    if beyond:
        assert ids.max() >= ROWS
        with pytest.raises(UserError, match=r"<(one|two)>' of id 76[89].*768 rows"):
            check_rows(rows, FREE, wide)
        with pytest.raises(UserError, match=r"<(one|two)>' of id 76[89].*768 rows"):
            FREE.room(prompt, wide)
    else:
        assert ids.max() < ROWS
        check_rows(rows, FREE, wide)
        FREE.room(prompt, wide)


@pytest.mark.parametrize("packing", ["none", "best_fit", "concat"])
def test_a_row_longer_than_the_positions_is_refused(base, packing):
    texts = [Conversation(None, "I am here. " * n, f"x:{n}") for n in (1, 10, 14)]
    examples = encode(texts, base.tokenizer, train_on="all", max_length=None).examples
    length = min(100, max(len(example.tokens) for example in examples))
    rows = pack(examples, packing, 100)
    check_rows(rows, Limits(ROWS, int(rows.lengths.max()), None), base.tokenizer)
    assert rows.lengths.max() >= length
    with pytest.raises(UserError, match=r"positions .*set data.max_length=\d+ or less"):
        check_rows(rows, Limits(ROWS, int(rows.lengths.max()) - 1, None), base.tokenizer)


def test_added_tokens_may_lie_beyond_the_embedding_but_no_others(wide):
    check_tokenizer(wide, FREE, "folder")
    words = wide._tokenizer.get_vocab()
    last = max(id for token, id in words.items() if id < ROWS)
    check_tokenizer(wide, Limits(last + 1, None, None), "folder")
    with pytest.raises(UserError, match=f"the tokenizer in folder has the token .* of id {last}"):
        check_tokenizer(wide, Limits(last, None, None), "folder")


@pytest.mark.parametrize("kind", ["bos_token", "eos_token"])
def test_the_tokens_that_open_and_end_a_text_have_rows(wide, kind):
    tokenizer = copy.deepcopy(wide._tokenizer)
    setattr(tokenizer, kind, "<two>")
    with pytest.raises(UserError, match="has the token '<two>' of id 769"):
        check_tokenizer(TokenizerWrapper(tokenizer), FREE, "folder")


def test_loading_holds_the_tokenizer_against_the_model(base_folder, tmp_path):
    folder = shutil.copytree(base_folder, tmp_path / "base")
    file = folder / "tokenizer_config.json"
    text = file.read_text().replace('"eos_token": "<|endoftext|>"', '"eos_token": "<|new|>"')
    file.write_text(text)
    with pytest.raises(UserError, match=r"the tokenizer in .*base has the token '<\|new\|>'"):
        load(folder)


def test_a_model_whose_table_is_unknown_is_not_held_against_it():
    Limits(None, None, None).check_ids(10**9, SimpleNamespace(), "x")
