"""What stands between a client and the model, on any input: JSON, the text of tokens, calls of functions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.generate.language_model import LanguageModel
from bimo.serve.engines import Token
from bimo.serve.errors import ApiError
from bimo.serve.limits import JSON_DEPTH
from bimo.serve.strict_json import parse
from bimo.serve.tools import CallReader
from bimo.serve.writing import Writer
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4), st.booleans())
def test_json_is_read_as_it_is(value: dict[str, Any], ascii: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii).encode()) == value


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0d8ef1 -eNIa', max_size=60).map(str.encode))
def test_anything_else_is_refused(data: bytes) -> None:
    try:
        value = parse(data)
    except ApiError as refusal:
        found = refusal.body
    else:
        found = {"error": {"message": json.dumps(value, ensure_ascii=False, allow_nan=False)}}
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8")


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_how_deep_json_may_be() -> None:
    parse(nested(JSON_DEPTH))
    with pytest.raises(ApiError, match="deeper"):
        parse(nested(JSON_DEPTH + 1))
    brackets = {"a": "[" * 999 + '\\"{{' * 99}
    assert parse(json.dumps(brackets).encode()) == brackets, "brackets in strings do not count"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["To be, or not to be. 话说天下大势，分久必合，合久必分。" * 3], 290)


@given(st.data())
def test_pieces_and_tokens_belong_together(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=1, max_size=40))
    stop = data.draw(st.lists(st.sampled_from(["be", "天下", "势，", "o", "��"]), max_size=2))
    writer, pieces = Writer(tokenizer, stop), []
    for place, id in enumerate(ids):
        pieces.append(writer.add(Token(id, -1.0, finish_reason="length" if place == len(ids) - 1 else None)))
        if pieces[-1].finish_reason:
            break
    text = "".join(piece.text for piece in pieces)
    whole = tokenizer.decode_bytes(ids).decode("utf-8", errors="replace")
    assert whole.startswith(text) and not any(sign in text for sign in stop)
    entries = [entry for piece in pieces for entry in piece.entries]
    assert [entry.token.id for entry in entries] == ids[: len(entries)]
    sent = 0
    for piece in pieces:
        assert all(sent <= entry.offset <= sent + len(piece.text) for entry in piece.entries)
        sent += len(piece.text)
    if pieces[-1].finish_reason == "length":
        assert text == whole and len(entries) == len(ids)
    else:
        assert all(entry.offset < len(text) for entry in entries)
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


CALLS = st.sampled_from(["weather", "time"]).map(
    lambda name: "<tool_call>" + json.dumps({"name": name, "arguments": {"x": [1, "话"]}}) + "</tool_call>"
)
WORDS = st.sampled_from(["a", "<tool", "_call>", "</tool_call>", "<", "话", " "])


@given(st.lists(WORDS | CALLS, max_size=12).map("".join), st.lists(st.integers(1, 9), min_size=60, max_size=60))
def test_how_a_reply_is_cut_makes_no_difference(text: str, cuts: list[int]) -> None:
    whole = CallReader(["weather", "time"])
    shown, calls = whole.add(text, final=True)
    pieces, reader, place = [], CallReader(["weather", "time"]), 0
    for cut in cuts:
        pieces.append(reader.add(text[place : place + cut])[0])
        place += cut
    pieces.append(reader.add(text[place:], final=True)[0])
    assert [(call.name, call.arguments) for call in reader.calls] == [(call.name, call.arguments) for call in calls]
    assert "".join(pieces) == shown
    if not calls:
        assert shown == text


def test_arguments_as_llama_writes_them(model: LanguageModel) -> None:
    for text, arguments in (('{"name": "a", "parameters": {"x": 1}}', '{"x": 1}'), ('{"name": "a"}', "{}")):
        reader = CallReader(["a"], bare=True)
        assert reader.add(text[:9]) == ("", [])
        assert reader.add(text[9:], final=True)[0] == "" and reader.calls[0].arguments == arguments
    reader = CallReader(["a"], bare=True)
    assert reader.add("no call", final=True) == ("no call", [])
