"""Phi-3's family against Transformers, on random weights with the published configurations."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.utils import load_model
from transformers import AutoModelForCausalLM

from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.errors import UserError
from mlx_yoda.generation import answer, answer_all, token_ids
from mlx_yoda.model.family import expecting
from mlx_yoda.model.load import load, load_lazily, resolve
from mlx_yoda.recipes.dataset import check_rows
from mlx_yoda.train.forward import Arrays, forward_of
from tests.model import phi3_configs as configs

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers.*")

LONG = ["Phi-3-mini-128k", "Phi-3.5-mini", "Phi-4-mini"]


def tokens(length, seed=0):
    return np.random.default_rng(seed).integers(3, 300, (1, length))


def both(folder):
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return load_lazily(folder, None, False)[0], theirs


def distance(ours, theirs, ids):
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids)).logits.numpy()
    return np.abs(np.array(ours(mx.array(ids))) - wanted).max()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of that name, scaled down in width and depth; further keys change it."""

    def make(name, **keys):
        path = tmp_path_factory.mktemp("family") / "model"
        config = configs.scaled_down(configs.PHI[name], heads=2) | keys
        tokenizer = resolve("demo") if config["vocab_size"] == 768 else None
        write_random_phi3(path, config, tokenizer=tokenizer, seed=2)
        return path

    return make


@pytest.mark.parametrize("name", configs.PHI)
def test_logits_are_transformers(folder, name):
    ours, theirs = both(folder(name))
    assert distance(ours, theirs, tokens(60)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Phi-3-mini-4k", "Phi-3-medium-4k"])
def test_beyond_2047_tokens_the_window_slides(folder, name):
    path = folder(name)
    ours, theirs = both(path)
    ids = tokens(2060)
    assert distance(ours, theirs, ids) < 1e-4
    assert distance(load_model(path)[0], theirs, ids) > 0.01, "mlx-lm's own has no window"


@pytest.mark.slow
def test_beyond_4096_tokens_the_long_factors_hold(folder):
    ours, theirs = both(folder("Phi-3.5-mini"))
    assert distance(ours, theirs, tokens(4100)) < 1e-4


@pytest.mark.parametrize("name", LONG)
def test_mlx_lm_alone_has_the_long_factors_for_short_texts(folder, name):
    """The fault that `model.rope` makes good; when this fails, it may have become needless."""
    path = folder(name)
    _, theirs = both(path)
    assert distance(load_model(path)[0], theirs, tokens(60)) > 0.5


@pytest.mark.parametrize("name", LONG)
def test_a_configuration_written_by_transformers_5_is_read(folder, tmp_path, name):
    _, theirs = both(folder(name))
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in config
    assert "rope_scaling" not in config
    assert distance(load_lazily(tmp_path, None, False)[0], theirs, tokens(60)) < 1e-4


SHORT = {"rope_scaling": None, "sliding_window": None}
SMALL_WINDOW = {"sliding_window": 16}


@pytest.mark.parametrize("step", [2048, 12])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Phi-3-mini-4k", SMALL_WINDOW),
        ("Phi-3.5-mini", {"original_max_position_embeddings": 32}),
        ("Phi-4-mini", {"original_max_position_embeddings": 32, "sliding_window": 20}),
    ],
    ids=["window", "long factors", "both"],
)
def test_text_in_pieces_goes_on_as_in_transformers(folder, name, keys, step):
    """A prompt beyond window and limit, prefilled at once and in chunks, then token by token."""
    ours, theirs = both(folder(name, **keys))
    ids = tokens(45)
    with expecting(ours, ids.shape[1]):
        found = [
            int(token)
            for token, _ in generate_step(
                mx.array(ids[0]), ours, max_tokens=20, prefill_step_size=step
            )
        ]
    out = theirs.generate(
        input_ids=torch.tensor(ids),
        attention_mask=torch.ones_like(torch.tensor(ids)),
        max_new_tokens=20,
        min_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert found == out[0, ids.shape[1] :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("length", [20, 31, 32, 33])
def test_an_answer_that_crosses_the_original_length_is_transformers(folder, length):
    """From the first token beyond it on, all of the text has the long factors."""
    ours, theirs = both(folder("Phi-3.5-mini", original_max_position_embeddings=32))
    ids = tokens(length)
    found = list(token_ids(ours, ids[0].tolist(), 24, greedy_sampler))
    out = theirs.generate(
        input_ids=torch.tensor(ids),
        attention_mask=torch.ones_like(torch.tensor(ids)),
        max_new_tokens=24,
        min_new_tokens=24,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert found == out[0, length:].tolist()


@pytest.mark.parametrize(
    ("name", "keys"),
    [("Phi-3-mini-4k", SMALL_WINDOW), ("Phi-3.5-mini", {"original_max_position_embeddings": 20})],
)
def test_many_answers_are_the_single_ones(folder, name, keys):
    base = load(folder(name, vocab_size=768, **keys))
    asked = [
        [{"role": "user", "content": text}]
        for text in ("Hi.", "I am here." * 9, "You must find it.")
    ]
    single = [answer(base.model, base.tokenizer, messages, max_tokens=8) for messages in asked]
    assert answer_all(base.model, base.tokenizer, asked, max_tokens=8) == single


@pytest.mark.parametrize(
    ("name", "keys"), [("Phi-3-mini-4k", SMALL_WINDOW), ("Phi-4-mini", {"sliding_window": 10})]
)
def test_training_sees_the_same_model(folder, name, keys):
    """The loss over the ragged layout is that of Transformers, row by row, beyond the window."""
    ours, theirs = both(folder(name, **keys))
    rows = []
    for length in (30, 7, 21):
        row = tokens(length, seed=length)[0].astype(np.int32)
        rows.append(Packed(row, np.ones(length, bool), (length,)))
    batch = Arrays.of(collate(rows, choose_shapes([needed(rows)])))
    total = 0.0
    for row in rows:
        ids = torch.tensor(row.tokens[None].astype(np.int64))
        with torch.no_grad():
            total += theirs(ids, labels=ids).loss.item() * (len(row.tokens) - 1)
    assert forward_of(ours)(batch).item() == pytest.approx(total, rel=1e-5)


def test_rows_that_need_the_long_factors_are_refused(folder):
    model, _ = both(folder("Phi-3.5-mini"))
    assert model.limits.longest_row == 4096
    row = Packed(np.zeros(4097, np.int32), np.ones(4097, bool), (4097,))
    with pytest.raises(UserError, match=r"4097 tokens.*data\.max_length=4096"):
        check_rows(PackedRows.of([row]), model.limits, None)
    other, _ = both(folder("Phi-3-mini-4k"))
    with pytest.raises(UserError, match=r"4,097 tokens.* 4,096 positions.*data\.max_length=4096"):
        check_rows(PackedRows.of([row]), other.limits, None)
    other.limits = replace(other.limits, context=4097)
    check_rows(PackedRows.of([row]), other.limits, None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"head_dim": 8}, "head_dim 8"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_at_load(folder, keys, message):
    path = folder("Phi-3-mini-4k")
    config = json.loads((path / "config.json").read_text()) | keys
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_lazily(path, None, False)
