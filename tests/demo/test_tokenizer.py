"""The tokenizer: any text comes back, and chats look as Phi-3 wants them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from mlx_yoda.demo import MODEL
from mlx_yoda.demo.pretrain import make_tokenizer
from mlx_yoda.demo.tokenizer import CHAT_TEMPLATE, CHAT_TOKENS, PLAIN_TOKENS

SPECIAL = PLAIN_TOKENS + CHAT_TOKENS
PACKAGED = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
CHAT = [
    {"role": "system", "content": "Short, your answers must be."},
    {"role": "user", "content": "She lost the old map."},
    {"role": "assistant", "content": "The old map, she lost."},
    {"role": "user", "content": " And\nnow? "},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def test_package_holds_what_the_script_learns():
    learned = json.loads(make_tokenizer().to_str())
    assert learned == json.loads(PACKAGED.to_str())


@given(st.text().filter(lambda text: not any(token in text for token in SPECIAL)))
def test_any_text_comes_back(text):
    assert PACKAGED.decode(PACKAGED.encode(text).ids) == text


def test_a_word_is_the_same_token_anywhere():
    first, alone = PACKAGED.encode("map map").ids, PACKAGED.encode("map").ids
    assert first == alone * 2


def test_special_tokens(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(7))
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert (tokenizer.bos_token, tokenizer.unk_token) == ("<s>", "<unk>")
    assert tokenizer.decode([4, 6, 2], skip_special_tokens=True) == ""


def test_chat_template_spells_phi3s_format(tokenizer):
    text = tokenizer.apply_chat_template(CHAT[1:3], tokenize=False)
    assert text == (
        "<|user|>\nShe lost the old map.<|end|>\n"
        "<|assistant|>\nThe old map, she lost.<|end|>\n<|endoftext|>"
    )
    asked = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert asked.startswith("<|system|>\nShort, your answers must be.<|end|>\n<|user|>\n")
    assert asked.endswith("<|user|>\n And\nnow? <|end|>\n<|assistant|>\n")


@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_chat_template_agrees_with_phi3s_own(tokenizer, shared, add_generation_prompt):
    folder = shared / "data" / "phi-3-mini-4k-instruct"
    theirs = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    ours, expected = (
        tokenizer.apply_chat_template(
            CHAT,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        for template in (CHAT_TEMPLATE, theirs)
    )
    assert ours == expected


def test_marks_swallow_the_templates_newlines(tokenizer):
    ids = tokenizer.apply_chat_template(CHAT[1:3], return_dict=False)
    said = [PACKAGED.encode(message["content"]).ids for message in CHAT[1:3]]
    assert ids == [4, *said[0], 6, 5, *said[1], 6, 2]
