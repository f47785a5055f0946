from __future__ import annotations

from typing import Any

import pytest

from bimo.tune.shapes import Unshaped, conversation

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}}


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "user", "content": [{"text": "你好"}]}, {"role": "assistant", "content": "hello"}]},
        {"messages": '[{"from": "human", "value": "你好"}, {"from": "gpt", "value": "hello"}]'},
        {"messages": ["你好", "hello"]},
        {"messages": [[{"text": "你好"}], [{"text": "hello"}], [{"text": "unanswered"}]]},
        {"prompt": "你好", "answer": "hello"},
        {"prompt": "你好", "input": "", "answer": "hello", "history": []},
    ],
)  # fmt: skip
def test_every_shape_becomes_the_same_conversation(values: dict[str, Any]):
    found = conversation(values)
    assert found.messages == [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "hello"}]
    assert (found.question, found.answer) == ("你好", "hello")


def test_alpaca_keeps_input_history_and_system():
    values = {"system": "s", "prompt": "p", "input": "i", "answer": "a", "history": [["q", "r"]]}
    found = conversation(values).messages
    assert [(one["role"], one["content"]) for one in found] == [
        ("system", "s"), ("user", "q"), ("assistant", "r"), ("user", "p\n\ni"), ("assistant", "a"),
    ]  # fmt: skip


def test_tool_calls_are_kept_from_both_shapes():
    openai = {
        "messages": [
            {"role": "user", "content": "天气?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "北京"}'}}]},
            {"role": "tool", "content": "晴", "tool_call_id": "1"},
            {"role": "assistant", "content": "晴天"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }  # fmt: skip
    sharegpt = {
        "messages": [
            {"from": "human", "value": "天气?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "北京"}}'},
            {"from": "observation", "value": "晴"},
            {"from": "gpt", "value": "晴天"},
        ],
        "tools": '[{"name": "weather"}]',
    }
    one, other = conversation(openai), conversation(sharegpt)
    assert one.messages[1]["tool_calls"] == other.messages[1]["tool_calls"] == [CALL]
    assert [message["role"] for message in one.messages] == [message["role"] for message in other.messages]
    assert one.tools == other.tools == [{"type": "function", "function": {"name": "weather"}}]


def test_what_a_data_set_says_not_to_learn_is_marked():
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    assert [message.get("learn", True) for message in conversation({"messages": messages}).messages] == [
        True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"messages": []}, "no messages"),
        ({"messages": "hello"}, "neither a list nor JSON"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no answer"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "nobody"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]}, "an empty answer"),
        ({"messages": [{"role": "alien", "content": "x"}]}, "unknown role 'alien'"),
        ({"messages": [{"text": "x"}]}, "without a role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no text"),
        ({"messages": [{"from": "function_call", "value": "{"}]}, "not JSON"),
        ({"prompt": "x", "answer": ""}, "an empty answer"),
        ({"answer": "x"}, "no question"),
        ({"prompt": "x", "answer": "y", "history": ["z"]}, "history"),
        ({"prompt": "x", "answer": "y", "tools": "{"}, "tools that are not JSON"),
    ],
)
def test_what_is_no_conversation_is_refused_with_the_reason(values: dict[str, Any], reason: str):
    with pytest.raises(Unshaped, match=reason):
        conversation(values)
