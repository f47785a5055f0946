"""Function calls in a conversation, for chat templates that know none: they become plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"  # of Hermes, Qwen and SmolLM
INTRODUCTION = """\
You may call functions. These are available, one JSON object a line:
{tools}
To call one, write nothing but <tool_call>{{"name": "its name", "arguments": {{...}}}}</tool_call>."""


def unknown(template: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether a conversation has to do with functions in a way that its template does not mention."""
    said = any(message.get("role") == "tool" or message.get("tool_calls") for message in messages)
    return (bool(tools) and "tools" not in template) or (said and "tool" not in template)


def shown_without_template(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The conversation for a template that knows no tools: they, calls and results become plain text."""
    shown: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content") or ""
        if role == "tool":
            role, content = "user", f"<tool_response>{content}</tool_response>"
        for call in message.get("tool_calls") or ():
            content += OPEN + json.dumps(call["function"], ensure_ascii=False) + CLOSE
        shown.append({"role": role, "content": content})
    if tools:
        lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        told = INTRODUCTION.format(tools=lines)
        if shown and shown[0]["role"] == "system":
            told = shown.pop(0)["content"] + "\n\n" + told
        shown.insert(0, {"role": "system", "content": told})
    return shown
