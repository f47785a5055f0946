"""Templates of strangers: what they give is what Jinja gives, and what they may use up has an end."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bimo.errors import TokenizerError
from bimo.tokenizer import chat, sandbox

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind.\n\nAnd brief:\n"},
    {"role": "user", "content": "  却说 <b>曹操</b> ", "tools": [{"name": "f", "arguments": {"x": [1, 2.5, None]}}]},
    {"role": "assistant", "content": "it's 12"},
]
# What real templates use, and what the sandbox takes apart.
TEMPLATES = [
    chat.CHATML,
    "{%- set ns = namespace(n=0, seen=[]) -%}{% for m in messages[::-1] %}{% set ns.n = ns.n + loop.index * 2 %}"
    "{% set ns.seen = ns.seen + [m.role] %}{% endfor %}{{ ns.n }} {{ ns.seen }} {{ ns.seen | join(', ') }}",
    "{% macro show(m, deep=true) %}[{{ m.content | trim }}{{ '!' ~ m.role ~ 7 }}]{% endmacro %}"
    "{% for m in messages if m.role != 'system' %}{{ show(m) }}{% else %}none{% endfor %}",
    "{% set x %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ x | indent(3) }}|"
    "{{ messages[0].content | indent(2, true) }}{{ messages[0].content | indent(blank=true) }}",
    "{% filter upper %}a{{ messages[0].content }}{% endfilter %}{% set y | trim %} {{ 1 + 2 }} {% endset %}{{ y }}",
    "{{ messages | map(attribute='role') | list }}{{ messages | selectattr('tools', 'defined') | list | length }}",
    "{% for k, v in messages[1].tools[0].arguments.items() %}{{ k }}={{ v | tojson }} {{ (k, v) }} {% endfor %}",
    "{{ messages[1].content[2:4] }}{{ messages[1].content.split('<') }}{{ 'x'.join(['a', 'b']) }}",
    "{{ messages[0].content.replace('\\n', '|') }}{{ messages[0].content | replace('e', 'é', 1) }}",
    "{{ {'a': [1, 2], 'b': (3,)} }}{{ dict(messages[0], content='x') }}{{ nothing }}{{ none }}{{ true }}{{ 1.5 }}",
    "{{ 'a' * 3 }}{{ [1] * 2 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ '%s-%03d' % ('a', 7) }}{{ 7 // 2 }}{{ -3 }}",
    "{{ messages | join('; ', attribute='content') }}{{ [messages[0].content, 3] | join }}{{ 'a\\n' | indent }}",
    "{% for n in [1, 2] recursive %}{{ n }}{% if loop.depth < 3 %}{{ loop([7]) }}{% endif %}{% endfor %}",
    "{% for (a, b) in [(1, 2), (3, 4)] %}{% set c, d = a, b %}{{ c + d }}{% endfor %}",
    "{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}in{{ messages | length }}{% endcall %}",
    "{{ messages[0] | tojson(indent=2) }}{{ messages | tojson }}",
]


def render(template: str, messages: Any = MESSAGES) -> str:
    return chat.render(template, messages, names={}, variables={}, add_generation_prompt=True)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_gives_what_jinja_gives(template: str) -> None:
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = chat._to_json
    wanted = plain.from_string(template).render(messages=MESSAGES, add_generation_prompt=True)
    assert render(template) == wanted and wanted


DOUBLE = "{%% set ns = namespace(x=%s) %%}{%% for i in range(99) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x }}"
GREEDY = {
    "endless loops": "{% for i in range(99999) %}" * 4 + "{% endfor %}" * 4,
    "loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "wide recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "sums of texts": DOUBLE % ("'x'", "ns.x + ns.x"),
    "joined texts": DOUBLE % ("'x'", "ns.x ~ ns.x"),
    "sums of lists": DOUBLE % ("[1]", "ns.x + ns.x"),
    "lists that hold lists": DOUBLE % ("[1]", "[ns.x, ns.x]"),
    "tuples that hold tuples": DOUBLE % ("(1,)", "(ns.x, ns.x)"),
    "objects that hold objects": DOUBLE % ("{}", "dict(a=ns.x, b=ns.x)"),
    "objects written out": DOUBLE % ("{}", "{'a': ns.x, 'b': ns.x}"),
    "blocks that are kept": "{% set ns = namespace(x='xx') %}{% for i in range(99) %}{% set y %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% set ns.x = y %}{% endfor %}",
    "a product": "{{ 'x' * 9999999999 }}",
    "a product the other way": "{{ 9999999999 * ['x'] }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a long product": DOUBLE % ("9", "ns.x * ns.x"),
    "a format": "{{ '%9999999999d' % 1 }}",
    "a format by argument": "{{ '%*d' % (9999999999, 1) }}",
    "a format by name": "{{ '%(a(b))9999999999d' % {'a(b)': 1} }}",
    "a precision": "{{ '%.9999999999f' % 1.5 }}",
    "a format method": "{{ '{:9999999999}'.format(1) }}",
    "a format filter": "{{ '%9999999999d' | format(1) }}",
    "center": "{{ 'x' | center(9999999999) }}",
    "a method that widens": "{{ 'x'.ljust(9999999999) }}",
    "zeros": "{{ 'x'.zfill(9999999999) }}",
    "tabs": "{{ '\t'.expandtabs(9999999999) }}",
    "attr": "{{ ('x' | attr('center'))(9999999999) }}",
    "indent": "{{ 'x\nx' | indent(9999999999) }}",
    "json": "{{ [1] | tojson(indent=9999999999) }}",
    "json separators": "{{ [1, 2] | tojson(separators=('x' * 9999, ':')) }}",
    "batch": "{{ [1] | batch(9999999999, 0) | list }}",
    "slice": "{{ [1] | slice(9999999999) | list }}",
    "replace": "{% set x = 'x' * 9999 %}{{ x.replace('x', x) }}",
    "replace filter": "{% set x = 'x' * 9999 %}{{ x | replace('', x) }}",
    "join": "{% set x = 'x' * 9999 %}{{ x.join(x) }}",
    "join filter": "{% set x = 'x' * 9999 %}{{ x | list | join(x) }}",
    "filters in loops": "{% set x = 'x' * 9999 %}{% for i in range(9999) %}{% set y = x | upper %}{% endfor %}",
    "parts in loops": "{% set x = 'x' * 9999 %}{% for i in range(9999) %}{% set y = x[1:] %}{% endfor %}",
    "words": "{{ lipsum(99999999) }}",
    "namespaces that hold namespaces": "{% set top = namespace(x=namespace()) %}{% for i in range(99) %}"
    "{% set ns = namespace(a=top.x, b=top.x) %}{% set top.x = ns %}{% endfor %}{{ [top.x] }}",
    "views that hold views": DOUBLE % ("{}", "dict(a=[ns.x.items(), ns.x.items()])"),
    "a namespace": "{% set ns = namespace() %}{% set ns.x = [ns, ns] %}{{ ns }}",
    "a range": "{{ range(999999999) | list }}",
    "a huge number": "{{ " + "9" * 9999 + " }}",
    "deep blocks": "{% for i in [1] %}" * 200 + "{% endfor %}" * 200,
    "deep text blocks": "{% filter upper %}" * 200 + "{% endfilter %}" * 200 + "{{ raise_exception('end') }}",
    "deep conditions": "{% if x %}" * 200 + "{% endif %}" * 200 + "{{ raise_exception('end') }}",
    "deep brackets": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("name", GREEDY)
def test_what_a_template_uses_up_has_an_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CHARACTERS", 300_000)
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    tracemalloc.start()
    try:
        with pytest.raises(TokenizerError, match="cannot render"):
            render(GREEDY[name])
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


REACHING = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ [''] | map('attr', '__class__') | list }}",
]


@pytest.mark.parametrize("template", REACHING)
def test_a_template_reaches_nothing(template: str) -> None:
    before = [dict(message) for message in MESSAGES]
    with contextlib.suppress(TokenizerError):
        assert render(template) in ("", "['']", "[Undefined]")
    assert before == MESSAGES


def test_the_allowance_is_for_each_rendering() -> None:
    template = "{% for i in range(90000) %}" + "x" * 400 + "{% endfor %}"
    assert [len(render(template)) for _ in range(3)] == [36_000_000] * 3


def test_long_conversations_fit() -> None:
    message = {"role": "user", "content": "word " * 200}
    rendered = render(TEMPLATES[2] + TEMPLATES[0], [message] * 2_000)
    assert rendered.count("word") == 800_000


def test_a_template_cannot_name_what_counts() -> None:
    with pytest.raises(TokenizerError):
        render("{{ environment.step() }}")
    assert render("{% set step = 1 %}{% set environment = 2 %}{% for i in range(3) %}{{ step }}{% endfor %}") == "111"


def test_problems_are_told_without_rendering() -> None:
    assert chat.problem(chat.CHATML) == ""
    for template in ("{% for %}", "{{", GREEDY["center"], GREEDY["a huge number"], GREEDY["deep blocks"]):
        assert chat.problem(template), template
