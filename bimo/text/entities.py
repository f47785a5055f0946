"""Words of a text that get labels, and entities as labels of words: B-X begins one of kind X, I-X goes on, O is none.

A word of a script without spaces is a character of it. Shapes: W words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bimo.text.scripts import UNSPACED

OUTSIDE = "O"
_UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED)
# A character without spaces; letters and digits, marks inside them too ("don't", "3.5"); a mark, repeated or not.
_LETTERS = rf"(?:(?![{_UNSPACED}])\w)+"
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTERS}(?:[^\w\s]{_LETTERS})*|([^\w\s]|_)\1*")
_UNSPACED_CHARACTER = re.compile(rf"[{_UNSPACED}]")
_NO_SPACE_BESIDE = re.compile(rf"[{_UNSPACED}\u3000-\u303f\uff00-\uffef]")  # wide marks and digits too
_CHUNK = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_AS_BIO = {"S": "B", "U": "B", "E": "I", "L": "I"}  # IOBES and BILOU say the same with more letters


class Span(NamedTuple):
    """A stretch, from ``start`` to before ``end``: characters of a text, or words of a sequence."""

    start: int
    end: int


class Entity(NamedTuple):
    """Words from ``start`` to before ``end`` that are of one kind."""

    start: int
    end: int
    kind: str


def words_in(text: str) -> list[Span]:
    """Where the words of a text stand, in characters."""
    return [Span(*found.span()) for found in _WORD.finditer(text)]


def joined(words: Sequence[str]) -> tuple[str, list[Span]]:
    """Words as one text, and where each stands; a space is between two unless one is of a script without spaces."""
    written, places, reached, last = list[str](), list[Span](), 0, ""
    for word in words:
        if last and word and not (_NO_SPACE_BESIDE.match(last) or _NO_SPACE_BESIDE.match(word)):
            written.append(" ")
            reached += 1
        written.append(word)
        places.append(Span(reached, reached := reached + len(word)))
        last = word[-1:] or last
    return "".join(written), places


@functools.lru_cache(maxsize=1 << 16)
def parts_of(word: str) -> tuple[Span, ...]:
    """Where the words of a given word stand in it: its characters in a script without spaces, else the whole."""
    return tuple(words_in(word)) if _UNSPACED_CHARACTER.search(word) else (Span(0, len(word)),)


def are_entities(labels: Iterable[str]) -> bool:
    """Whether labels are those of entities; IOBES and BILOU count too."""
    found = {*labels} - {OUTSIDE}
    return bool(found) and all(map(_CHUNK.fullmatch, found))


def as_bio(label: str) -> str:
    """A label of IOBES or BILOU as one of B, I and O."""
    found = _CHUNK.fullmatch(label)
    return f"{_AS_BIO.get(found[1], found[1])}-{found[2]}" if found else label


def going_on(label: str) -> str:
    """The label of what goes on with a word of this label."""
    return f"I-{label[2:]}" if label != OUTSIDE else label


def labels_of(words: Sequence[Span], spans: Iterable[tuple[int, int, str]]) -> list[str]:
    """The labels (W,) of words in a text with spans (start, end, kind) in order; a word partly inside is inside."""
    labels = [OUTSIDE] * len(words)
    for start, end, kind in spans:
        begun = False
        for number, word in enumerate(words):
            if word.start < end and start < word.end and labels[number] == OUTSIDE:
                labels[number] = f"{'I' if begun else 'B'}-{kind}"
                begun = True
    return labels


def entities(labels: Sequence[str]) -> list[Entity]:
    """The entities that labels (W,) say, as conlleval reads them: an I-X after O or another kind begins one too."""
    found: list[Entity] = []
    for place, label in enumerate(labels):
        if label == OUTSIDE:
            continue
        last, kind = (found[-1] if found else None), label[2:]
        if last and last.end == place and last.kind == kind and label.startswith("I-"):
            found[-1] = last._replace(end=place + 1)
        else:
            found.append(Entity(place, place + 1, kind))
    return found
