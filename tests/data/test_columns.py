import json
from dataclasses import replace
from typing import Any

import pytest

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.columns import Conversation, conversations
from mlx_yoda.data.messages import Message
from mlx_yoda.data.remarks import Kind
from mlx_yoda.data.rows import Row
from mlx_yoda.errors import UserError

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
RULE = {"role": "system", "content": "s"}


def read(values: dict[str, Any], **columns: Any) -> Conversation:
    (found,) = conversations([Row(values, "x.jsonl:1")], DataConfig(**columns))
    return replace(found, remarks=())


def unused(values: dict[str, Any], **columns: Any) -> list[str]:
    (found,) = conversations([Row(values, "x.jsonl:1")], DataConfig(**columns))
    return [remark.name for remark in found.remarks if remark.kind == Kind.UNUSED]


def refused(values: dict[str, Any], **columns: Any) -> str:
    with pytest.raises(UserError) as error:
        read(values, **columns)
    return str(error.value)


def chat(*contents: str, roles: str = "ua") -> tuple[Message, ...]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return tuple({"role": names[r], "content": c} for r, c in zip(roles, contents, strict=True))


@pytest.mark.parametrize(
    ("values", "columns", "expected"),
    [
        ({"prompt": "p", "completion": "c"}, {}, ("p", "c")),
        ({"sentence": "p", "translation": "t", "translation_extra": "c"}, {}, ("p", "c")),
        ({"sentence": "p", "translation": "c"}, {}, ("p", "c")),
        ({"sentence": "x", "prompt": "p", "translation": "x", "completion": "c"}, {}, ("p", "c")),
        ({"q": "p", "completion": "c", "text": "x"}, {"prompt_column": "q"}, ("p", "c")),
        ({"sentence": "p", "r": "c", "messages": 0}, {"completion_column": "r"}, ("p", "c")),
        ({"sentence": "p", "translation": "c", "translation_extra": "x"},
         {"prompt_column": "sentence", "completion_column": "translation"}, ("p", "c")),
        ({"q": "p", "translation": "c"}, {"prompt_column": "q"}, ("p", "c")),
    ],
)  # fmt: skip
def test_pairs(values: dict[str, Any], columns: dict[str, str], expected: tuple[str, str]) -> None:
    found = read(values, **columns)
    assert found == Conversation(chat(*expected), None, "x.jsonl:1", context=1)


def test_messages_and_text() -> None:
    found = Conversation(chat("s", "q", "a", roles="sua"), None, "x.jsonl:1")
    assert read({"messages": [RULE, ASK, SAY], "prompt": "p", "completion": "c"}) == found
    assert read({"talk": [RULE, ASK, SAY], "text": "t"}, messages_column="talk") == found
    text = Conversation(None, "t", "x.jsonl:1")
    assert read({"text": "t", "prompt": "p"}) == text
    assert read({"body": "t", "messages": []}, text_column="body") == text


def test_prompt_and_completion_as_messages() -> None:
    values = {"prompt": [RULE, ASK, SAY, ASK], "completion": [SAY]}
    messages = chat("s", "q", "a", "q", "a", roles="suaua")
    assert read(values) == Conversation(messages, None, "x.jsonl:1", context=4)
    mixed = read({"prompt": "p", "completion": [SAY]})
    assert mixed == Conversation(chat("p", "a"), None, "x.jsonl:1", context=1)


def test_columns_may_differ_from_row_to_row_if_those_read_are_there() -> None:
    rows = [Row({"text": "a", "x": 1}, "1"), Row({"text": "b"}, "2"), Row({"x": 1}, "3")]
    assert [c.text for c in conversations(rows[:2], DataConfig())] == ["a", "b"]
    with pytest.raises(UserError, match="3: text must be text, not null"):
        conversations(rows, DataConfig())


def test_no_rows_are_no_conversations() -> None:
    assert conversations([], DataConfig(prompt_column="anything")) == []


@pytest.mark.parametrize("key", ["prompt", "completion", "messages", "text"])
def test_a_column_that_is_not_there(key: str) -> None:
    message = refused({"prompt": "p", "completion": "c"}, **{f"{key}_column": "nope"})
    assert message == (
        f"x.jsonl:1: data.{key}_column is 'nope'; the columns are 'prompt', 'completion'"
    )


@pytest.mark.parametrize("values", [{"a": 1, "b": 2}, {}, {"sentence": "s"}, {"completion": "s"}])
def test_columns_that_are_not_recognised(values: dict[str, Any]) -> None:
    listed = ", ".join(map(repr, values)) or "none"
    assert f"is recognised in the columns {listed}; name data.prompt_column" in refused(values)


def test_half_a_pair_does_not_fall_back_to_another_kind() -> None:
    assert "no prompt with completion" in refused({"q": "p", "text": "t"}, prompt_column="q")


def test_kinds_that_exclude_each_other() -> None:
    values = {"a": "p", "b": "c", "text": "t"}
    message = refused(values, prompt_column="a", completion_column="b", text_column="text")
    assert "exclude each other" in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "p", "completion": None}, "completion must be text, not null"),
        ({"prompt": 3, "completion": "c"}, "prompt must be text, not a number"),
        ({"prompt": {"a": 1}, "completion": "c"}, "prompt must be text, not an object"),
        ({"prompt": "p", "completion": []}, "completion is a list without messages"),
        ({"messages": "hi"}, "messages must be a list of messages, not text"),
        ({"messages": []}, "messages is a list without messages"),
        ({"messages": [ASK, "hi"]},
         "messages[1] must be an object with a role and a content, not text"),
        ({"messages": [{"from": "human", "value": "q"}]},
         "messages[0] has the keys 'from' and 'value', which is ShareGPT's form; write role for"),
        ({"messages": [{"role": "user"}]}, "messages[0] has no content; a message is an object"),
        ({"messages": [{"text": "q"}]}, "messages[0] has no role and no content; a message is"),
        ({"messages": [{"role": "human", "content": "q"}]},
         "messages[0] has the role 'human'; the roles are system, user, assistant, tool"),
        ({"messages": [{"role": ["user"], "content": "q"}]}, "messages[0] has the role ['user']"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]},
         "messages[1].content must be text, not null"),
        ({"messages": [ASK, {**SAY, "tool_calls": "f()"}]},
         "messages[1].tool_calls must be a list of objects, not text"),
        ({"messages": [ASK, {**SAY, "tool_calls": [{"name": "f", "arguments": "{"}]}]},
         "messages[1].tool_calls[0].arguments is text that is not JSON"),
        ({"messages": [ASK, {**SAY, "weight": 0.5}]}, "messages[1].weight must be 0 or 1, not 0.5"),
        ({"messages": [ASK, {**SAY, "reasoning": "\ud800"}]},
         "messages[1] holds half of a surrogate pair"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
         "messages[0].content[0].text must be text, not null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0] is 'image_url'; mlx-yoda reads parts of type 'text' only"),
        ({"messages": [ASK, SAY], "tools": "["}, "tools is text that is not JSON"),
        ({"messages": [ASK, SAY], "tools": {"a": 1}},
         "tools must be a list of tools, each an object, not an object"),
        ({"text": True}, "text must be text, not true or false"),
        ({"text": "\ud800"}, "text holds half of a surrogate pair"),
    ],
)  # fmt: skip
def test_values_that_are_not_what_they_should_be(values: dict[str, Any], message: str) -> None:
    assert refused(values).startswith(f"x.jsonl:1: {message}")


def test_parquet_leaves_nulls_in_messages() -> None:
    found = read({"messages": [{**ASK, "tool_calls": None}, {**SAY, "name": None}]})
    assert found.messages == chat("q", "a")


def test_columns_with_a_value_that_are_not_read_are_named() -> None:
    alpaca = {"instruction": "Do.", "input": "the hat", "output": "hat", "id": 0, "note": ""}
    named = {"prompt_column": "instruction", "completion_column": "output"}
    assert unused(alpaca, **named) == ["input", "id"]
    assert unused({"prompt": "p", "completion": "c", "tools": [{"name": "f"}]}) == []
    assert unused({"text": "t", "tools": [{"name": "f"}], "source": None}) == ["tools"]
    assert unused({"messages": [ASK, SAY], "prompt": "p"}) == ["prompt"]


def test_whole_messages_and_tools_are_read() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": "1"}'}}
    messages = [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "content": [{"type": "text", "text": "12"}, {"text": " C"}], "name": "f"},
        {**SAY, "weight": 0, "tool_calls": []},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for column in (tools, json.dumps(tools)):
        (found,) = conversations(
            [Row({"messages": messages, "tools": column}, "x:1")], DataConfig()
        )
        assert found.tools == tuple(tools)
        parsed = {"type": "function", "function": {"name": "f", "arguments": {"x": "1"}}}
        assert found.messages == (
            ASK,
            {"role": "assistant", "tool_calls": [parsed], "reasoning_content": "hm"},
            {"role": "tool", "content": "12 C", "name": "f"},
            {**SAY, "weight": 0, "tool_calls": []},
        )
        assert [remark.kind for remark in found.remarks] == [Kind.ARGUMENTS]
    bare = {**SAY, "tool_calls": [{"name": "f", "arguments": ""}]}
    assert read({"prompt": [ASK], "completion": [bare]}).messages[1]["tool_calls"] == [
        {"name": "f", "arguments": {}}
    ]
