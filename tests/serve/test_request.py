"""What is asked, checked field by field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.serve.refusal import Refusal
from mlx_yoda.serve.request import ChatRequest, Defaults, parse

DEFAULTS = Defaults(max_tokens=50, temperature=0.5, top_p=0.9, seed=3)
HELLO = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}


def read(defaults=DEFAULTS, **fields):
    return parse(json.dumps(HELLO | fields).encode(), ["base", "adapter"], defaults)


def test_what_is_left_out_is_as_served():
    assert read() == ChatRequest(
        model="base",
        messages=HELLO["messages"],
        max_tokens=50,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=(),
        stream=False,
        include_usage=False,
    )


def test_what_is_said_counts():
    request = read(
        model="adapter",
        max_tokens=7,
        temperature=0,
        top_p=1,
        seed=-1,
        stop="x",
        stream=True,
        stream_options={"include_usage": True},
        user="somebody",
    )
    assert request.model == "adapter"
    assert (request.max_tokens, request.temperature, request.top_p) == (7, 0.0, 1.0)
    assert request.seed == 2**64 - 1
    assert (request.stop, request.stream, request.include_usage) == (("x",), True, True)
    assert read(max_completion_tokens=5).max_tokens == 5
    assert read(max_completion_tokens=5, max_tokens=7).max_tokens == 5  # the newer name counts


def test_parts_of_text_are_joined_and_developers_are_the_system():
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    assert read(messages=messages).messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "ab"},
    ]


def test_a_system_message_is_added_where_there_is_none():
    defaults = Defaults(max_tokens=5, system="Be brief.")
    assert [m["content"] for m in read(defaults).messages] == ["Be brief.", "Hello"]
    own = [{"role": "system", "content": "Own."}, *HELLO["messages"]]
    assert read(defaults, messages=own).messages == own


WRONG = {
    "model": [None, "other", 1, ["base"]],
    "messages": [
        None, [], "Hello", [1], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}],
        [{"role": ["user"], "content": "x"}], [{"role": "user", "content": 1}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
        [{"role": "user", "content": [{"text": 1}]}], [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}],
        [{"role": "user", "content": "x", "name": "Ann"}],
        [{"role": "user", "content": "x", "tool_calls": [{}]}],
        [{"role": "user", "content": "x", "prefix": True}],
    ],
    "max_tokens": [0, -1, 51, 1.5, "5", True, 10**30],
    "max_completion_tokens": [0, 51],
    "temperature": [-0.1, 2.1, "1", True, 1e300],
    "top_p": [0, 1.1, []],
    "seed": [1.5, 2**63, -(2**63) - 1, "1"],
    "stop": [[""], ["a"] * 5, 1, {"a": 1}, [1]],
    "stream": ["yes", 1],
    "stream_options": [[], {"include_usages": True}],
    "n": [2, True], "tools": [[{}]], "logprobs": [True], "logit_bias": [{"1": 5}],
    "presence_penalty": [0.5, False], "response_format": [{"type": "json_object"}],
    # What other servers know, and what none does.
    "top_k": [40], "min_p": [0.05], "repetition_penalty": [1.1], "tool_choice": ["required"],
    "top_logprobs": [1], "functions": [[{}]], "modalities": [["audio"]], "xtc_probability": [0.1],
    "adapters": ["/etc"], "draft_model": ["x"], "chat_template_kwargs": [{}], "mirostat": [2],
    "temprature": [0.5], "reasoning_effort": ["low"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_wrong_fields_are_named(field, value):
    with pytest.raises(Refusal) as refused:
        read(**{field: value})
    assert refused.value.status == (404 if field == "model" else 400)
    assert field in (refused.value.param or refused.value.message)


def test_an_unknown_field_is_refused_by_its_name():
    with pytest.raises(Refusal, match="'typical_p' is not a field that is known here"):
        read(typical_p=0.9)
    with pytest.raises(Refusal, match=r"messages\[0\]\.'prefix' is not a field"):
        read(messages=[{"role": "user", "content": "x", "prefix": True}])


NEUTRAL = {
    "n": 1, "tools": [], "tool_choice": "auto", "parallel_tool_calls": False, "logprobs": False,
    "top_logprobs": 0, "logit_bias": {}, "presence_penalty": 0.0, "frequency_penalty": 0,
    "response_format": {"type": "text"}, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
    "user": "somebody", "metadata": {"a": "b"}, "store": True, "service_tier": "auto",
    "stream_options": {"include_usage": False, "include_obfuscation": False},
}  # fmt: skip


@pytest.mark.parametrize("field", NEUTRAL)
def test_what_asks_for_nothing_is_accepted(field):
    assert read(**{field: NEUTRAL[field]}) == read() == read(**{field: None})


def test_a_reply_may_be_sent_back_as_openai_s_client_has_it():
    reply = {
        "role": "assistant", "content": "Hm.", "refusal": None, "annotations": [], "audio": None,
        "function_call": None, "tool_calls": None,
    }  # fmt: skip
    messages = [*HELLO["messages"], reply, {"role": "user", "content": "And?"}]
    assert [m["content"] for m in read(messages=messages).messages] == ["Hello", "Hm.", "And?"]


@pytest.mark.slow
@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_each_seed_has_a_seed_of_mlx_of_its_own(one, other):
    assert (read(seed=one).seed == read(seed=other).seed) == (one == other)
    assert 0 <= read(seed=one).seed < 2**64


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b"\xff", b'{"seed": NaN}', b"[" * 100_000, b"9" * 10_000]
)
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(Refusal) as refused:
        parse(body, ["base"], DEFAULTS)
    assert refused.value.status == 400


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*WRONG, "user"]), anything))
def test_whatever_comes_is_understood_or_refused(fields):
    try:
        request = read(**fields)
    except Refusal as refusal:
        assert refusal.status in (400, 404)
        assert json.dumps(refusal.as_dict())
    else:
        assert 1 <= request.max_tokens <= 50
        assert 0 <= request.temperature <= 2
