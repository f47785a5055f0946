"""The stream against a slow reference that sees the whole text, however the bytes are cut into tokens."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bimo.generate.stream import TextStream


def reference(data: bytes, stops: list[str]) -> tuple[str, bool]:
    """Read character by character until some stop string is complete; cut where the longest such began."""
    text = data.decode("utf-8", errors="replace")
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


few = st.text(alphabet="abé墨😀", max_size=12).map(str.encode)
stop_strings = st.lists(st.text(alphabet="abé墨", min_size=1, max_size=4), max_size=3)


@given(st.one_of(few, st.binary(max_size=12)), st.lists(st.integers(0, 100), max_size=8), stop_strings)
def test_pieces_join_to_the_text_before_the_stop(data: bytes, places: list[int], stops: list[str]) -> None:
    stream = TextStream(stops)
    pieces = [stream.add(token) for token in cut(data, places)]
    pieces.append(stream.end())
    assert ("".join(pieces), stream.stopped) == reference(data, stops)


@given(few, stop_strings)
def test_nothing_is_held_back_longer_than_needed(data: bytes, stops: list[str]) -> None:
    stream, shown = TextStream(stops), ""
    for end in range(len(data)):
        shown += stream.add(data[end : end + 1])
        whole = data[: end + 1].decode("utf-8", errors="ignore")
        if stream.stopped:
            return
        held = whole[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_a_character_is_never_split() -> None:
    stream = TextStream()
    assert [stream.add(bytes([byte])) for byte in "é墨".encode()] == ["", "é", "", "", "墨"]
    assert stream.add("墨".encode()[:2]) == "" and stream.end() == "�"


def test_a_stop_string_across_tokens_never_shows() -> None:
    stream = TextStream(["\nUser:"])
    assert [stream.add(token) for token in (b"Hi\n", b"Us", b"ed\n", b"User", b": x")] == ["Hi", "", "\nUsed", "", ""]
    assert stream.stopped and stream.add(b"more") == "" and stream.end() == ""
