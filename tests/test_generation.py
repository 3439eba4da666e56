"""Answers: greedy and sampled, streamed, batched, with an adapter."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.tokenizer_utils import (
    BPEStreamingDetokenizer,
    NaiveStreamingDetokenizer,
    SPMStreamingDetokenizer,
    TokenizerWrapper,
)

from mlx_yoda import generation
from mlx_yoda.adapters.peft import Adapter
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import (
    answer,
    answer_all,
    attach,
    pieces,
    prompt_tokens,
    stream,
)
from mlx_yoda.lora.inject import disabled, inject, lora_layers, remove
from mlx_yoda.model.load import load

WORDS = ["the ship", "a", "you must go to the old city now", "no", "I am here", "the cat sleeps"]
QUESTIONS = [[{"role": "user", "content": words}] for words in WORDS]
HELLO = QUESTIONS[2]


@pytest.fixture(scope="module")
def base():
    """The demo's model, which says again what it is told."""
    return load("demo")


def ask(base, messages=HELLO, max_tokens=20, **options):
    return answer(base.model, base.tokenizer, messages, max_tokens=max_tokens, **options)


def test_greedy_text_is_that_of_the_likeliest_tokens(base):
    prompt = prompt_tokens(base.tokenizer, HELLO)
    tokens = []
    for token, _ in generate_step(mx.array(prompt), base.model, max_tokens=20):
        if token in base.tokenizer.eos_token_ids:
            break
        tokens.append(int(token))
    assert tokens
    assert ask(base).strip() == base.tokenizer.decode(tokens).strip()


def test_the_prompt_is_the_chat_template_up_to_the_answer(base):
    text = base.tokenizer.decode(prompt_tokens(base.tokenizer, HELLO))
    assert "<|user|>" in text
    assert text.rstrip().endswith("<|assistant|>")


def test_the_stream_is_the_answer_in_pieces(base):
    said = list(stream(base.model, base.tokenizer, HELLO, max_tokens=20))
    assert len(said) > 1
    assert "".join(said) == ask(base)


def test_the_answer_ends_before_an_end_token_and_at_max_tokens(base, monkeypatch):
    tokenizer = base.tokenizer
    prompt = mx.array(prompt_tokens(tokenizer, HELLO))
    tokens = [int(t) for t, _ in generate_step(prompt, base.model, max_tokens=6)]
    stop = next(i for i in range(1, 6) if tokens[i] not in tokens[:i])
    whole, cut = ask(base, max_tokens=6), ask(base, max_tokens=stop)
    assert whole.startswith(cut)
    assert whole != cut
    monkeypatch.setattr(tokenizer, "_eos_token_ids", {tokens[stop]})
    assert ask(base, max_tokens=6) == cut
    assert answer_all(base.model, tokenizer, [HELLO], max_tokens=6) == [cut]


@pytest.mark.slow
def test_batched_answers_are_those_given_one_by_one(base):
    one_by_one = [ask(base, messages) for messages in QUESTIONS]
    assert len(set(one_by_one)) == len(one_by_one)
    for batch_size in (1, 4, 16):
        together = answer_all(
            base.model, base.tokenizer, QUESTIONS, max_tokens=20, batch_size=batch_size
        )
        assert together == one_by_one
    assert answer_all(base.model, base.tokenizer, [], max_tokens=20) == []


@pytest.mark.slow
def test_sampling_repeats_with_its_seed_only(base):
    def sampled(seed):
        return ask(base, temperature=1.5, top_p=0.95, seed=seed)

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1
    assert ask(base, temperature=0.0, seed=1) == ask(base)


def test_a_tiny_nucleus_is_greedy(base):
    assert ask(base, temperature=1.0, top_p=1e-6, seed=3) == ask(base)


def test_nothing_is_printed(base, capsys):
    ask(base)
    answer_all(base.model, base.tokenizer, QUESTIONS[:2], max_tokens=3)
    assert capsys.readouterr().out == ""


def test_what_the_library_prints_goes_to_standard_error(base, capsys, monkeypatch):
    call = type(base.model).__call__

    def chatty(self, *args, **kwargs):
        print("chatter")
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(base.model), "__call__", chatty)
    for piece in stream(base.model, base.tokenizer, HELLO, max_tokens=3):
        print(piece, end="")
    captured = capsys.readouterr()
    assert "chatter" not in captured.out
    assert "chatter" in captured.err
    assert captured.out


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(UserError, match="no chat template"):
        prompt_tokens(SimpleNamespace(has_chat_template=False), HELLO)


def test_a_conversation_that_the_template_refuses_is_explained(base):
    tokenizer = copy.deepcopy(base.tokenizer._tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match="no system role"):
        prompt_tokens(TokenizerWrapper(tokenizer), HELLO)


@pytest.fixture
def adapter(base):
    """An adapter that changes the answers, taken off again from the model."""
    lora = LoraConfig(r=4, target_modules=["qkv_proj", "down_proj"])
    for layer in inject(base.model, lora, mx.random.key(0)).values():
        layer.lora_B = mx.random.normal(layer.lora_B.shape, key=mx.random.key(1))
    tensors = {path: (m.lora_A, m.lora_B) for path, m in lora_layers(base.model).items()}
    remove(base.model)
    yield Adapter(lora, tensors, None)
    remove(base.model)


def test_an_adapter_answers_until_it_is_removed(base, adapter):
    plain = ask(base)
    attach(base.model, adapter)
    adapted = ask(base)
    assert adapted != plain
    assert answer_all(base.model, base.tokenizer, [HELLO], max_tokens=20) == [adapted]
    with disabled(base.model):
        assert ask(base) == plain
    assert ask(base) == adapted


def test_an_adapter_of_another_model_is_refused(base, adapter):
    path = "model.layers.1.mlp.down_proj"
    a, b = adapter.tensors.pop(path)
    with pytest.raises(UserError, match=f"no weights for {path}"):
        attach(base.model, adapter)
    adapter.tensors[path] = (a[:, :-1], b)
    with pytest.raises(UserError, match=f"for {path} do not fit"):
        attach(base.model, adapter)
    adapter.tensors[path] = (a, b)
    adapter.tensors["model.layers.7.mlp.down_proj"] = (a, b)
    with pytest.raises(UserError, match=r"the model has no linear layer model\.layers\.7"):
        attach(base.model, adapter)
    assert not lora_layers(base.model)


def limited(base, monkeypatch, **limits):
    monkeypatch.setattr(base.model, "limits", replace(base.limits, **limits))


def test_an_answer_ends_where_the_positions_end_and_says_so(base, monkeypatch):
    length, notes = len(prompt_tokens(base.tokenizer, HELLO)), []
    limited(base, monkeypatch, context=length + 3)
    ended = list(pieces(base.model, base.tokenizer, HELLO, max_tokens=9, note=notes.append))
    assert [piece.finish_reason for piece in ended] == [None, None, "length"]
    assert ended[-1].tokens == 3
    assert notes == [f"The answer ends here: all {length + 3} positions of the model are full."]
    assert ask(base, max_tokens=9) == ask(base, max_tokens=3)
    assert answer_all(base.model, base.tokenizer, [HELLO], max_tokens=9) == [ask(base)]
    notes.clear()
    ask(base, max_tokens=2, note=notes.append)  # ends by its own bound
    assert notes == []


@pytest.mark.parametrize("room", [0, -1])
def test_a_conversation_that_leaves_no_room_is_refused(base, monkeypatch, room):
    length = len(prompt_tokens(base.tokenizer, HELLO))
    limited(base, monkeypatch, context=length + room)
    message = f"the conversation has {length} tokens, but the model has {length + room} positions"
    with pytest.raises(UserError, match=message):
        ask(base)
    with pytest.raises(UserError, match=message):
        answer_all(base.model, base.tokenizer, [HELLO], max_tokens=3)


def test_a_token_without_a_row_is_refused(base, monkeypatch):
    largest = max(prompt_tokens(base.tokenizer, HELLO))
    limited(base, monkeypatch, vocabulary=largest)
    with pytest.raises(UserError, match=f"of id {largest}, for which the model has no row"):
        ask(base)
    with pytest.raises(UserError, match=f"of id {largest}, for which the model has no row"):
        answer_all(base.model, base.tokenizer, [QUESTIONS[0], HELLO], max_tokens=3)
    limited(base, monkeypatch, vocabulary=largest + 1)
    assert ask(base)


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece", "any"])
def test_ids_beyond_the_tokenizer_add_nothing(base, monkeypatch, kind):
    """A padded vocabulary has rows for them; Transformers' `decode` leaves them out too."""
    hugging_face = base.tokenizer._tokenizer
    detokenizers = {
        "byte level": BPEStreamingDetokenizer,
        "sentencepiece": SPMStreamingDetokenizer,
        "any": NaiveStreamingDetokenizer,
    }
    tokenizer = TokenizerWrapper(hugging_face, detokenizers[kind])
    said = hugging_face.encode("Here am I", add_special_tokens=False)
    ids = [len(tokenizer), *said[:1], len(tokenizer) + 50, *said[1:], 10**6]
    assert hugging_face.decode(ids) == hugging_face.decode(said)

    def answered(tokens):
        monkeypatch.setattr(generation, "token_ids", lambda *args: iter(tokens))
        return ask(SimpleNamespace(model=base.model, tokenizer=tokenizer), max_tokens=len(tokens))

    assert answered(ids) == answered(said) != ""
    assert generation.text_of(tokenizer, ids) == answered(said)
