"""Structured output against Python's own json and re, on random logits, which obey nothing by themselves."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import EngineError, UsageError
from bimo.generate.constraints import Constraints, Grammar
from bimo.generate.engine import Engine
from bimo.generate.request import End, Event, Request, Token
from bimo.generate.sampling import Sampling
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from tests.generate.fake import FakeBackend, finish

pytest.importorskip("llguidance")

TEXT = 'To be, or not to be: {"name": "Li Bai", "born": 701}. 话说天下大势，分久必合，合久必分。' * 3


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT], 330)


@cache
def constraints() -> Constraints:
    return Constraints(tokenizer(), [tokenizer().eos_id])


def write(
    rule: Grammar, *, seed: int = 0, guess: bool = True, most: int = 250, temperature: float = 1.0
) -> list[Event]:
    """What a model without any sense writes under a rule."""
    backend = FakeBackend(vocab_size=tokenizer().vocab_size + 7, context=400)  # padded
    engine = Engine(backend)
    if not guess:
        rule = NoGuess(rule)
    # The end token is not unlikely: texts without an end of their own shall end.
    sampling = Sampling(max_new_tokens=most, temperature=temperature, logit_bias=((tokenizer().eos_id, 8.0),))
    request = Request([5], sampling, seed=seed, eos_ids=frozenset({tokenizer().eos_id}), constraint=rule, logprobs=1)
    handle = engine.submit(request)
    finish(engine)
    return list(handle)


class NoGuess(Grammar):
    def __init__(self, rule: Grammar) -> None:
        self.rule = rule

    def start(self) -> Any:
        matcher = self.rule.start()
        matcher.forced = list  # type: ignore[method-assign]
        return matcher


def text_of(events: list[Event]) -> str:
    return tokenizer().decode_bytes([event.id for event in events if isinstance(event, Token)]).decode("utf-8")


def ended(events: list[Event]) -> bool:
    return events[-1] == End("stop")


names = st.text(st.sampled_from('abc名字"\\ \n'), min_size=1, max_size=4)
leaves = st.one_of(
    st.sampled_from([{"type": "integer"}, {"type": "boolean"}, {"type": "null"}]),
    st.builds(lambda texts: {"enum": texts}, st.lists(names, min_size=1, max_size=3, unique=True)),
    st.builds(lambda low: {"type": "integer", "minimum": low, "maximum": low + 30}, st.integers(-50, 50)),
    st.just({"type": "string", "maxLength": 4}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda parts: {
                "type": "object",
                "properties": parts,
                "required": list(parts),
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, max_size=3),
        ),
        st.builds(lambda part: {"type": "array", "items": part, "maxItems": 3}, inner),
    ),
    max_leaves=4,
)


def obeys(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema, as far as the strategy above uses it."""
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if kind == "object":
        parts = schema["properties"]
        return value.keys() == parts.keys() and all(obeys(value[name], part) for name, part in parts.items())
    if kind == "array":
        return len(value) <= 3 and all(obeys(item, schema["items"]) for item in value)
    if kind == "integer":
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if kind == "string":
        return isinstance(value, str) and len(value) <= 4
    return value is None if kind == "null" else isinstance(value, bool)


@settings(max_examples=40)
@given(schemas, st.integers(0, 99))
def test_json_obeys_its_schema(schema: dict[str, Any], seed: int) -> None:
    events = write(constraints().json_schema(schema), seed=seed)
    if ended(events):
        text = text_of(events)
        assert obeys(json.loads(text), schema)
        assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) or "\\" in text
    else:  # a whole number may go on for ever
        assert events[-1] == End("length") and "integer" in str(schema)


@settings(max_examples=15)
@given(schemas, st.integers(0, 99))
def test_what_is_forced_is_only_guessed(schema: dict[str, Any], seed: int) -> None:
    rule = constraints().json_schema(schema)
    assert write(rule, seed=seed) == write(rule, seed=seed, guess=False)


def test_any_object() -> None:
    found = [write(constraints().json_schema({"type": "object"}), seed=seed) for seed in range(12)]
    values = [json.loads(text_of(events)) for events in found if ended(events)]
    assert len(values) > 3 and all(isinstance(value, dict) for value in values)


@pytest.mark.parametrize("pattern", ["[a-c]{2,5}", "(ab|cd)+!", r"\d{4}-\d\d", "合久(必分|必合)"])
def test_a_regular_expression_is_matched_as_a_whole(pattern: str) -> None:
    texts = {text_of(write(constraints().regex(pattern), seed=seed)) for seed in range(8)}
    assert all(re.fullmatch(pattern, text) for text in texts) and len(texts) > 1


@settings(max_examples=25)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5), st.integers(0, 9)
)
def test_a_choice_is_one_of_its_texts(texts: list[str], seed: int) -> None:
    events = write(constraints().choice(texts), seed=seed, most=350)
    assert ended(events) and text_of(events) in texts


def test_a_grammar() -> None:
    rule = constraints().grammar('start: "(" start ")" | "x"')
    texts = [text_of(events) for seed in range(8) if ended(events := write(rule, seed=seed))]
    assert {re.sub(r"^(\(*)x(\)*)$", lambda found: str(len(found[1]) - len(found[2])), text) for text in texts} == {"0"}
    assert "(x)" in texts


def test_the_end_comes_with_the_text() -> None:
    """Where nothing can follow, no end token is drawn."""
    events = write(constraints().choice(["ab"]), temperature=0)
    (last,) = [event for event in events if isinstance(event, Token) and event.finish_reason]
    assert last.finish_reason == "stop" and last.id != tokenizer().eos_id


def test_requests_of_one_rule_have_their_own_places() -> None:
    rule = constraints().choice(["ab", "cd"])
    first, second = rule.start(), rule.start()
    first.advance(tokenizer().encode("a")[0])
    assert first.allowed().sum() == 1 < second.allowed().sum()


def test_a_grammar_cannot_write_control_tokens() -> None:
    names = tokenizer().special
    inside = next(id for id in names.values() if id != tokenizer().eos_id)
    name = next(name for name, id in names.items() if id == inside)
    for source in (f'start: "a" <[{inside}]>', f'start: "a" {name}'):
        try:
            rule = constraints().grammar(source)
        except UsageError:
            continue
        events = write(rule)
        assert isinstance(events[-1], End) and isinstance(events[-1].error, EngineError)
        assert inside not in [event.id for event in events if isinstance(event, Token)]


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("json_schema", {"type": "nothing"}, "Invalid type: nothing"),
        ("json_schema", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        ("json_schema", {"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
        ("json_schema", {"$ref": "http://example.com/x"}, "cannot be used"),
        ("json_schema", {"const": float("nan")}, "wrong"),
        ("json_schema", {"const": {1, 2}}, "wrong"),
        ("json_schema", [], "wrong"),
        ("json_schema", {"enum": ["x" * 70_000]}, "at most 65,536 characters; got 70,0"),
        ("json_schema", {"anyOf": [{"$ref": "#"}] * 300}, "at most 256 references; got 300"),
        ("regex", "a(", "unclosed group|invalid regex"),
        ("regex", "(?=a)b", "invalid regex"),
        ("regex", "(" * 65 + ")" * 65, "at most 64 nested brackets; got 65"),
        ("regex", 5, "a text"),
        ("choice", [], "several texts"),
        ("choice", "ab", "several texts"),
        ("choice", ["a", ""], "none of them empty"),
        ("grammar", "start: foo", "unknown name"),
        ("grammar", '%import "/etc/passwd"\nstart: "a"', "cannot be used"),
        ("grammar", "start: a\n" + "a: b\n" * 300, "at most 256 references"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_reason(kind: str, source: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        getattr(constraints(), kind)(source)


def test_a_schema_cannot_loosen_the_spaces() -> None:
    rule = constraints().json_schema({"x-guidance": {"whitespace_flexible": True}, "type": "object"})
    place = rule.start()
    place.advance(tokenizer().encode("{")[0])
    allowed = {tokenizer().token_bytes(int(id)) for id in np.flatnonzero(place.allowed())}
    assert b"}" in allowed and b" " not in allowed


def test_work_is_bounded() -> None:
    """A pattern whose automaton is huge ends its request, not the engine."""
    events = write(constraints().regex("(a|b)*a(a|b){400}c|((x{1,900}){1,900}){1,900}"), most=40)
    end = events[-1]
    assert isinstance(end, End) and (end.reason == "length" or isinstance(end.error, EngineError))


@pytest.mark.parametrize("longest", ["rules", "references"])
def test_the_longest_chain_allowed_is_compiled(longest: str) -> None:
    """A chain of some thousand overflows the compiler's stack, which ends the process."""
    if longest == "rules":
        chain = "".join(f"r{i}: r{i + 1}\n" for i in range(253))
        rule = constraints().grammar(f'start: r0\n{chain}r253: "a"\n')
        assert text_of(write(rule)) == "a"
    else:
        parts: dict[str, Any] = {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(250)}
        constraints().json_schema(
            {"$defs": {**parts, "d250": {"type": "null"}}, "$ref": "#/$defs/d0"}
        ).start().allowed()


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match="pip install 'bimo"):
        Constraints(tokenizer(), [])
