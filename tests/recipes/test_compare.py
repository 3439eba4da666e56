"""Base and adapter measured side by side, against sums made by hand."""

import copy
import json
import math
from dataclasses import replace
from itertools import takewhile

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_yoda.config.schema import Config, DataConfig, LoraConfig, TrainConfig
from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import Conversation, conversations
from mlx_yoda.data.questions import questions
from mlx_yoda.data.rows import Row
from mlx_yoda.errors import UserError
from mlx_yoda.generation import answer, prompt_tokens, text_of
from mlx_yoda.lora.inject import inject, lora_layers, remove
from mlx_yoda.model.load import load
from mlx_yoda.recipes import compare as comparing
from mlx_yoda.recipes import samples
from mlx_yoda.recipes.compare import compare, read_split
from mlx_yoda.recipes.respond import Responder

CONFIG = Config(
    data=DataConfig(max_length=64),
    train=TrainConfig(generation_max_new_tokens=10, per_device_eval_batch_size=2),
)
HOW = {"train_on": "completions", "max_length": None}
ASKED = [("I am here.", "Here, I am."), ("She was proud.", "She was proud."), ("We sleep.", "Hm.")]
ROWS = [
    Conversation(
        ({"role": "user", "content": said}, {"role": "assistant", "content": wanted}),
        None,
        f"row {i}",
    )
    for i, (said, wanted) in enumerate(ASKED)
]


@pytest.fixture(scope="module")
def base():
    return load("demo")


@pytest.fixture
def adapted(base):
    """The demo's base with an adapter that spoils it."""
    for layer in inject(base.model, LoraConfig(r=2), mx.random.key(0)).values():
        layer.lora_B = 0.1 * mx.random.normal(layer.lora_B.shape, key=mx.random.key(1))
    yield Responder(base, "some/adapter")
    remove(base.model)


def loss_by_hand(base, conversation):
    """Sum over the answer's tokens, its end included, by the model's own forward pass."""
    question, reply = conversation.messages
    turns = [{"role": "user", "content": question["content"]}]
    start = base.tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    turns.append({"role": "assistant", "content": reply["content"]})
    whole = base.tokenizer.apply_chat_template(turns)
    assert whole[: len(start)] == start
    logits = base.model(mx.array([whole[:-1]]))[0]
    losses = nn.losses.cross_entropy(logits, mx.array(whole[1:]))[len(start) - 1 :]
    return losses.sum().item(), losses.size


def test_the_base_s_loss_is_the_mean_over_the_answers_tokens(base):
    measured = compare(Responder(base, None), ROWS, CONFIG)
    sums = [loss_by_hand(base, row) for row in ROWS]
    tokens = sum(count for _, count in sums)
    assert measured.adapter is None
    assert (measured.rows, measured.questions, measured.tokens) == (3, 3, tokens)
    assert measured.base.loss == pytest.approx(sum(loss for loss, _ in sums) / tokens, rel=1e-5)
    assert measured.base.perplexity == pytest.approx(math.exp(measured.base.loss))


def test_exact_match_is_that_of_greedy_answers(base):
    answers = [
        answer(base.model, base.tokenizer, [{"role": "user", "content": said}], max_tokens=10)
        for said, _ in ASKED
    ]
    share = sum(a == w for a, (_, w) in zip(answers, ASKED, strict=True)) / 3
    assert share == pytest.approx(1 / 3)  # the base repeats what it is told
    assert compare(Responder(base, None), ROWS, CONFIG).base.exact_match == pytest.approx(share)
    brief = replace(CONFIG, train=replace(CONFIG.train, generation_max_new_tokens=1))
    assert compare(Responder(base, None), ROWS, brief).base.exact_match == 0


def test_the_adapter_stands_beside_the_base_and_stays_in(base, adapted):
    sums = [loss_by_hand(base, row) for row in ROWS]
    both = compare(adapted, ROWS, CONFIG)
    assert lora_layers(base.model)
    remove(base.model)
    alone = compare(Responder(base, None), ROWS, CONFIG)
    assert both.base == alone.base
    assert both.adapter_name_or_path == "some/adapter"
    mean = sum(loss for loss, _ in sums) / sum(count for _, count in sums)
    assert both.adapter.loss == pytest.approx(mean, rel=1e-5)
    assert both.adapter.loss != pytest.approx(both.base.loss, rel=1e-3)


def test_plain_text_is_not_asked(base):
    rows = [Conversation(None, "The cat sleeps.", "row 1")]
    measured = compare(Responder(base, None), rows, CONFIG)
    assert measured.questions == 0
    assert measured.base.exact_match is None
    assert measured.base.chrf is None
    assert measured.base.loss > 0


@pytest.fixture
def folder(tmp_path):
    for name, count in (("train", 10), ("test", 4)):
        rows = [{"prompt": f"{name} {i}", "completion": "x"} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def first_words(rows):
    return [row.messages[0]["content"] for row in rows]


def test_a_split_is_read_up_to_the_limit(folder):
    config = replace(CONFIG, data=DataConfig(dataset_name=str(folder)))
    assert first_words(read_split(config, "test")) == [f"test {i}" for i in range(4)]
    assert first_words(read_split(config, "train", 2)) == ["train 0", "train 1"]
    with pytest.raises(UserError, match=r"no validation split.*validation_split=0\.1"):
        read_split(config, "validation")


def test_the_rows_held_out_are_those_of_training(folder):
    data = DataConfig(dataset_name=str(folder), validation_split=0.3)
    config = replace(CONFIG, data=data)
    held_out, kept = (first_words(read_split(config, name)) for name in ("validation", "train"))
    assert len(held_out) == 3
    assert sorted(held_out + kept) == sorted(f"train {i}" for i in range(10))
    other = replace(config, train=replace(config.train, seed=1))
    assert first_words(read_split(other, "validation")) != held_out


# As Qwen3's: an empty piece of thinking is written before an answer that has none.
WRAPPING = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}"
    "{{ '[think]\n\n[/think]\n\n' }}{% endif %}{{ m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def test_a_model_that_says_what_it_was_taught_matches_exactly(base, monkeypatch):
    words = copy.deepcopy(base.tokenizer)
    words.chat_template = WRAPPING
    taught = [row.tokens.tolist() for row in encode(ROWS, words, **HOW).examples]

    def perfect(model, tokenizer, conversations, *, max_tokens, tools):
        """Goes on from each prompt with the tokens of the row that begins so."""
        prompts = [prompt_tokens(tokenizer, messages) for messages in conversations]
        rests = [next(r[len(p) :] for r in taught if r[: len(p)] == p) for p in prompts]
        ended = [list(takewhile(lambda t: t not in tokenizer.eos_token_ids, r)) for r in rests]
        return [text_of(tokenizer, tokens) for tokens in ended]

    for module in (comparing, samples):
        monkeypatch.setattr(module, "answer_all", perfect)
    wrapping = replace(base, tokenizer=words)
    measured = compare(Responder(wrapping, None), ROWS, CONFIG).base
    assert (measured.exact_match, measured.chrf) == (1, pytest.approx(100))
    asked = questions(ROWS, words)
    told = samples.generated(wrapping, asked, when="after", step=1, max_new_tokens=10)
    assert told.exact_match == 1
    assert told.samples[0].reference.startswith("[think]")
    assert told.samples[0].reference.endswith("Here, I am.")


def test_what_is_to_be_said_of_the_rows_is_in_the_comparison(base):
    row = {"prompt": "Hi.", "completion": "Hi.<|end|>", "mood": "fine"}
    rows = conversations([Row(row, "x:1")], DataConfig())
    assert compare(Responder(base, None), rows, CONFIG).notes == (
        "columns that are not used: 'mood' in 1 row",
        "answers that end with the model's own end token, which is taken for the end of the turn: "
        "'<|end|>' in 1 row",
    )
