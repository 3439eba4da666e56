"""The packaged base: the same in mlx-lm and in Transformers, a good copier, no Yoda."""

import json

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from mlx_lm import batch_generate, load
from transformers import AutoModelForCausalLM

from mlx_yoda.demo import DATA, MODEL
from mlx_yoda.demo.pretrain import CONFIG


@pytest.fixture(scope="module")
def base():
    return load(str(MODEL))


@pytest.fixture(scope="module")
def held_out():
    lines = (DATA / "valid.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_size():
    assert json.loads((MODEL / "config.json").read_text()) == CONFIG
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 4e6
    assert {path.name for path in MODEL.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_weights_are_float32(base):
    """Half precision is slow on CPUs."""
    model, _ = base
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.float32}


def test_stops_at_both_ends(base):
    _, tokenizer = base
    ends = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    assert tokenizer.eos_token_ids == set(ends)


def test_transformers_gives_the_same_logits(base, held_out):
    model, tokenizer = base
    theirs = AutoModelForCausalLM.from_pretrained(MODEL)
    assert type(theirs).__name__ == "Phi3ForCausalLM"
    for row in held_out[:8]:
        messages = [{"role": "user", "content": row["sentence"]}]
        messages += [{"role": "assistant", "content": row["translation"]}]
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        ours = np.array(model(mx.array([ids])))
        with torch.no_grad():
            expected = theirs(torch.tensor([ids])).logits.numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_answers_in_plain_order(base, held_out):
    model, tokenizer = base
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["sentence"]}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for row in held_out
    ]
    answers = batch_generate(model, tokenizer, prompts, max_tokens=32).texts
    plain = np.mean([a == row["sentence"] for a, row in zip(answers, held_out, strict=True)])
    yoda = np.mean([a == row["translation"] for a, row in zip(answers, held_out, strict=True)])
    assert plain >= 0.95
    assert yoda <= 0.05
