"""Render a chat template so that only the template, never a message, can write a control token."""

from __future__ import annotations

import datetime
import functools
import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from bimo.errors import TokenizerError
from bimo.tokenizer import sandbox

Message = Mapping[str, Any]
WIDEST = 16  # columns of indent, or characters of a separator, in JSON

# ChatML, as Qwen and SmolLM use it: servers and converters know it by name.
CHATML = (
    "{%- for message in messages %}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "{{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)


def render(
    template: str,
    messages: Sequence[Message],
    *,
    names: Mapping[str, str],
    variables: Mapping[str, str],
    add_generation_prompt: bool,
    tools: Sequence[Message] | None = None,
) -> str:
    """Render ``messages`` and put ``names[token]`` wherever the template, and not a message, wrote a control token.

    Args:
        template: Jinja source, rendered with Hugging Face's settings and helpers.
        messages: as the template wants them, usually ``{"role": ..., "content": ...}``.
        names: control token -> what stands for it in the result.
        variables: further values for the template, such as ``eos_token``.
        add_generation_prompt: end with the beginning of an assistant message.
        tools: functions that the model may call, as JSON schemas; what they say is masked as messages are.

    Raises:
        TokenizerError: the template is not valid or refuses these messages.
    """
    # Messages are masked before rendering: a token found in the rendered text then comes from the template.
    alphabet = _alphabet(tuple(names))
    nonce = "".join([alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(32)])
    masked = [_mask(_without_none(message), names, nonce) for message in messages]
    try:
        given = {"messages": masked, "add_generation_prompt": add_generation_prompt}
        values = {"documents": None, **variables, "tools": _mask(tools, names, nonce), **given}
        rendered = sandbox.render(_compile(template), values)
    except jinja2.TemplateError as cause:
        raise TokenizerError(
            "The chat template cannot render these messages.",
            expected="messages with the keys and roles that the template knows, usually 'role' and 'content'",
            got=str(cause),
        ) from None
    named = with_names(rendered, names)
    return re.sub(rf"{nonce}:(\d+);", lambda found: chr(int(found[1])), named) if nonce in named else named


def with_names(text: str, names: Mapping[str, str]) -> str:
    """The text with ``names[token]`` in the place of every control token that it spells."""
    return _any_of(tuple(names)).sub(lambda found: names[found[0]], text) if names else text


@functools.lru_cache(maxsize=16)
def _alphabet(names: tuple[str, ...]) -> str:
    """Characters for a nonce: those of no name, which could else stand in it."""
    return "".join(sorted(set(string.digits + string.ascii_lowercase) - set("".join(names)))) or string.digits


@functools.lru_cache(maxsize=16)
def _any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))


@functools.lru_cache(maxsize=16)
def _beginning_of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?=(?:{'|'.join(map(re.escape, names))}))(?s:.)")


def problem(template: str) -> str:
    """Why a template can never be rendered; empty if it is Jinja."""
    try:
        _compile(template)
    except jinja2.TemplateError as cause:
        return str(cause) or type(cause).__name__
    return ""


def _without_none(message: Message) -> dict[str, Any]:
    """Leave out keys without a value, as transformers does: templates test for their presence."""
    return {key: value for key, value in message.items() if value is not None}


def _mask(value: Any, names: Mapping[str, str], nonce: str) -> Any:
    """Hide the first character of every control token in every string of ``value``, overlapping ones included."""
    if isinstance(value, str) and names:
        return _beginning_of(tuple(names)).sub(lambda found: f"{nonce}:{ord(found[0])};", value)
    if isinstance(value, Mapping):
        return {key: _mask(item, names, nonce) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(item, names, nonce) for item in value]
    return value


class _Generation(jinja2.ext.Extension):
    """Accepts ``{% generation %}`` blocks, with which some templates mark what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
    environment = sandbox.Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    return environment.template(template)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    # Jinja's own filter escapes HTML, which a language model was not trained on.
    if (
        any(len(str(part)) > WIDEST for part in options.get("separators") or ())
        or (options.get("indent") or 0) > WIDEST
    ):
        raise jinja2.TemplateError("the template widens JSON")
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
