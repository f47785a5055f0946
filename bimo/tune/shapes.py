"""Conversations as people publish them, in one form: OpenAI messages, ShareGPT, Alpaca, question and answer.

The form is that of chat templates: ``{"role", "content"}``, and ``tool_calls`` whose arguments are objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "question": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "answer": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
    "function": "tool",
    "用户": "user",
    "助手": "assistant",
    "系统": "system",
}


class Unshaped(Exception):
    """The values are no conversation, for the reason in the message."""


@dataclass(frozen=True)
class Conversation:
    """What was said, in order, and the functions that the assistant might call."""

    messages: list[Message]
    tools: list[Message] = field(default_factory=list)

    @property
    def question(self) -> str:
        """All that was said before the last answer, as plain text."""
        last = max(place for place, message in enumerate(self.messages) if message["role"] == "assistant")
        return _plain(message for message in self.messages[:last] if message["role"] != "system")

    @property
    def answer(self) -> str:
        """The last answer, as plain text."""
        return _plain([next(message for message in reversed(self.messages) if message["role"] == "assistant")])


def _plain(messages: Any) -> str:
    return "\n".join(
        message["content"] + "".join(json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or ())
        for message in messages
    )


def conversation(values: Mapping[str, Any]) -> Conversation:
    """The conversation in a row, whose values come by role: ``messages``, or ``prompt``, ``input`` and ``answer``.

    Args:
        values: besides, ``system`` and ``history`` (pairs of question and answer) go before, and ``tools`` along.

    Raises:
        Unshaped: it is none, or holds no answer; says why.
    """
    if "messages" in values:
        messages = turns(values["messages"])
    else:
        messages = _asked(values)
    if values.get("system") and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": text_of(values["system"])})
    if not any(message["role"] == "assistant" for message in messages):
        raise Unshaped("no answer of the assistant in it")
    if not any(message["role"] in ("user", "tool") for message in messages):
        raise Unshaped("nobody says anything to the assistant")
    last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
    for message in messages:
        if message["role"] == "assistant" and not message["content"].strip() and not message.get("tool_calls"):
            raise Unshaped("an empty answer")
    return Conversation(messages[: last + 1], tools_of(values.get("tools")))


def _asked(values: Mapping[str, Any]) -> list[Message]:
    """Alpaca's instruction, input and output, with the turns before them."""
    messages: list[Message] = []
    for pair in values.get("history") or ():
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise Unshaped("a history that is not made of pairs of question and answer")
        messages += [
            {"role": role, "content": text_of(said)} for role, said in zip(("user", "assistant"), pair, strict=True)
        ]
    asked = [text_of(values[key]) for key in ("prompt", "input") if values.get(key) not in (None, "")]
    if not any(part.strip() for part in asked):
        raise Unshaped("no question in it")
    if values.get("answer") in (None, ""):
        raise Unshaped("an empty answer")
    messages.append({"role": "user", "content": "\n\n".join(asked)})
    messages.append({"role": "assistant", "content": text_of(values["answer"])})
    return messages


def turns(value: Any) -> list[Message]:
    """A list of messages: ``role`` and ``content``, or ``from`` and ``value``; or what two say in turn.

    Raises:
        Unshaped: it is none of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unshaped("messages that are neither a list nor JSON") from None
    if not isinstance(value, Sequence) or not value:
        raise Unshaped("no messages in it")
    if all(isinstance(said, (str, list)) for said in value):
        in_turn = ((("user", "assistant")[place % 2], said) for place, said in enumerate(value))
        return [{"role": role, "content": text_of(said, "\n")} for role, said in in_turn]
    return [message(said) for said in value]


def message(value: Any) -> Message:
    """One message, from any of the usual forms.

    Raises:
        Unshaped: it is none of them.
    """
    if not isinstance(value, Mapping):
        raise Unshaped(f"a message that is a {type(value).__name__}, not an object")
    name = next((value[key] for key in ("role", "from", "speaker", "user") if isinstance(value.get(key), str)), None)
    if name is None:
        raise Unshaped(f"a message without a role, but with {', '.join(map(str, list(value)[:4]))}")
    role = ROLES.get(name.lower().strip())
    if role is None:
        raise Unshaped(f"a message of the unknown role '{name[:30]}'")
    content = text_of(next((value[key] for key in ("content", "value", "text") if value.get(key) is not None), ""))
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(call) for call in _calls(content)]}
    made: Message = {"role": role, "content": content}
    if value.get("tool_calls"):
        made["tool_calls"] = [_call(call) for call in value["tool_calls"]]
    for key in ("tool_call_id", "name", "reasoning_content", "learn"):
        if value.get(key) is not None:
            made[key] = value[key]
    if value.get("weight") == 0 or value.get("train") is False:  # as OpenAI and Axolotl mark what is not learned
        made["learn"] = False
    return made


def text_of(value: Any, between: str = "") -> str:
    """What a message says: a text, or the texts of its parts with ``between`` between them.

    Raises:
        Unshaped: there is something in it that is no text, such as a picture.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, Sequence):
        parts = [
            part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None for part in value
        ]
        if all(isinstance(part, str) for part in parts):
            return between.join(part for part in parts if part is not None)
    raise Unshaped("a message with something in it that is no text")


def _calls(content: str) -> list[Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise Unshaped("a function call that is not JSON") from None
    return found if isinstance(found, list) else [found]


def _call(value: Any) -> Message:
    """A call as templates want it, with its arguments as an object where they are one."""
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Unshaped("a function call without a name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
        arguments = parsed if isinstance(parsed, dict) else arguments
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def tools_of(value: Any) -> list[Message]:
    """The functions of a conversation, as OpenAI writes them.

    Raises:
        Unshaped: they are not JSON, or have no names.
    """
    if value in (None, "", []):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unshaped("tools that are not JSON") from None
    tools = []
    for tool in value if isinstance(value, list) else [value]:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise Unshaped("a tool without a name")
        tools.append({"type": "function", "function": dict(function)})
    return tools
