"""Functions that a chat model may call: how it is told of them, and how its calls are found in what it writes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bimo.tokenizer.calls import CLOSE, OPEN


class Call(NamedTuple):
    """A function call that the model wants made; ``arguments`` is JSON."""

    id: str
    name: str
    arguments: str

    @property
    def body(self) -> dict[str, Any]:
        """As chats tell it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def call_schema(tools: Sequence[Mapping[str, Any]], name: str | None) -> dict[str, Any]:
    """The JSON schema of a call of the function ``name``, or of any."""
    calls = []
    for tool in tools:
        function = tool["function"]
        if name in (None, function["name"]):
            properties = {
                "name": {"const": function["name"]},
                "arguments": function.get("parameters") or {"type": "object"},
            }
            calls.append(
                {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
            )
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def read_call(text: str, names: Sequence[str]) -> Call | None:
    """The call that a JSON text describes, if it is one of a known function."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))  # Llama says parameters
    if isinstance(arguments, str):
        return Call(new_id(), value["name"], arguments)
    return Call(new_id(), value["name"], json.dumps(arguments, ensure_ascii=False))


def new_id() -> str:
    """A name for a call, by which its result refers to it."""
    return f"call_{secrets.token_hex(12)}"


class CallReader:
    """Takes a reply apart while it grows: text to be shown, and calls.

    Args:
        names: of the functions that can be called.
        bare: the whole reply is the JSON of one call.
    """

    def __init__(self, names: Sequence[str], *, bare: bool = False) -> None:
        self._names, self._bare = names, bare
        self._held, self._called = "", False
        self.calls: list[Call] = []

    def add(self, text: str, *, final: bool = False) -> tuple[str, list[Call]]:
        """Take more of the reply; returns what is certain now."""
        self._held += text
        before = len(self.calls)
        shown = "" if self._bare and not final else self._release(final)
        return shown, self.calls[before:]

    def _release(self, final: bool) -> str:
        if self._bare:
            return self._taken(self._held, self._held)
        shown = ""
        while True:
            text, opened, rest = self._held.partition(OPEN)
            inside, closed, after = rest.partition(CLOSE)
            if not opened:
                kept = 0 if final else _beginning_of(OPEN, text)
                self._held = text[len(text) - kept :]
                return shown + self._after_call(text[: len(text) - kept])
            shown += self._after_call(text)
            if not closed and not final:
                self._held = opened + rest
                return shown
            shown += self._after_call(self._taken(inside, opened + inside + closed))
            self._held = after

    def _taken(self, inside: str, whole: str) -> str:
        """Take a call out of the reply; what is none stays as text."""
        call = read_call(inside, self._names)
        if call is None:
            return whole
        self.calls.append(call)
        self._called = True
        return ""

    def _after_call(self, text: str) -> str:
        """Text as it is shown: without the line ends between calls."""
        if self._called:
            text = text.lstrip()
            self._called = not text
        return text


def _beginning_of(sign: str, text: str) -> int:
    """The length of the longest end of ``text`` that begins ``sign``."""
    return next((n for n in range(min(len(text), len(sign) - 1), 0, -1) if text.endswith(sign[:n])), 0)
