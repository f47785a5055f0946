"""Render a chat template so that only the template, never a message, can write a control token."""

from __future__ import annotations

import datetime
import functools
import json
import re
import secrets
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bimo.errors import TokenizerError

Message = Mapping[str, Any]

# A template comes with a model, from anywhere: what it may do for one conversation.
STEPS = 1_000_000  # turns of loops and calls
CHARACTERS = 1_000_000  # that it writes, or repeats by a product, besides those of the messages
TICK = f"_tick_{secrets.token_hex(8)}"  # counts a step; no template knows its name
# What a template can cause by what it does with these messages.
FAILURES = (
    *(jinja2.TemplateError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, LookupError, RecursionError),
)

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
    free = sorted(set(string.digits + string.ascii_lowercase) - set("".join(names)))  # else a name could stand in it
    nonce = "".join(secrets.choice(free or string.digits) for _ in range(32))
    masked = [_mask(_without_none(message), names, nonce) for message in messages]
    values = {"documents": None, **variables, "tools": _mask(tools, names, nonce), "messages": masked}
    values |= {"add_generation_prompt": add_generation_prompt, TICK: _Budget()}
    most = CHARACTERS + 8 * len(repr((masked, values["tools"])))
    try:
        rendered = _joined(_compile(template).generate(values), most)
    except FAILURES as cause:
        raise TokenizerError(
            "The chat template cannot render these messages.",
            expected="messages with the keys and roles that the template knows, usually 'role' and 'content'",
            got=str(cause),
        ) from None
    longest_first = sorted(names, key=len, reverse=True)
    if longest_first:
        rendered = re.sub("|".join(map(re.escape, longest_first)), lambda found: names[found[0]], rendered)
    return re.sub(rf"{nonce}:(\d+);", lambda found: chr(int(found[1])), rendered)


class _Budget:
    """The steps of one rendering."""

    def __init__(self) -> None:
        self._left = STEPS

    def __call__(self) -> str:
        self._left -= 1
        if self._left < 0:
            raise jinja2.TemplateError(f"the template takes more than {STEPS:,} steps")
        return ""


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which every turn of a loop and every call costs a step, and no product is huge."""

    intercepted_binops = frozenset(["*", "**"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        template = super()._parse(source, name, filename)
        for loop in template.find_all(jinja2.nodes.For):
            tick = jinja2.nodes.Call(jinja2.nodes.Name(TICK, "load"), [], [], None, None)
            loop.body.insert(0, jinja2.nodes.ExprStmt(tick).set_lineno(loop.lineno))
        return template

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Call a function for the template."""
        context.parent[TICK]()
        return super().call(context, function, *arguments, **named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """A product or a power."""
        sizes = [value if isinstance(value, (int, float)) else len(value) for value in (left, right)]
        if (operator == "**" and max(map(abs, sizes)) > 100) or abs(sizes[0] * sizes[1]) > CHARACTERS:
            raise jinja2.TemplateError("the template multiplies too much")
        return super().call_binop(context, operator, left, right)


def _joined(pieces: Iterable[str], most: int) -> str:
    parts, written = [], 0
    for piece in pieces:
        parts.append(piece)
        written += len(piece)
        if written > most:
            raise jinja2.TemplateError(f"the template writes more than {most:,} characters")
    return "".join(parts)


def _without_none(message: Message) -> dict[str, Any]:
    """Leave out keys without a value, as transformers does: templates test for their presence."""
    return {key: value for key, value in message.items() if value is not None}


def _mask(value: Any, names: Mapping[str, str], nonce: str) -> Any:
    """Hide the first character of every control token in every string of ``value``, overlapping ones included."""
    if isinstance(value, str) and names:
        tokens = "|".join(map(re.escape, names))
        return re.sub(rf"(?=(?:{tokens}))(?s:.)", lambda found: f"{nonce}:{ord(found[0])};", value)
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
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    return environment.from_string(template)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    # Jinja's own filter escapes HTML, which a language model was not trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
