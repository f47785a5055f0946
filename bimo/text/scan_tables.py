"""The tables that ``scan.c`` works by: what every character is to the cleaning steps, and the words they look for."""

from __future__ import annotations

import ctypes
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo.text import measures, scripts
from bimo.text.clean import boilerplate, gutenberg, language, normalise, pages, pii_secrets, pii_view, quality
from bimo.text.scan import BOOK, LINES, NAMES, NOTES, PRIVATE
from bimo.text.words import MOSTLY_ENGLISH, ONLY_ENGLISH

# Bits and numbers as the source has them. The first four bits of a character are those of measures.py.
SPACE, IRREGULAR, LEAD, FOLLOW, ANOTHER_SCRIPT, DISGUISED, MARK_END = 16, 32, 64, 128, 256, 512, 1024
SLOTS, ENGLISH, MOSTLY, FOREIGN, NO_CHARACTER = 4096, 63, 62, 61, 0xFFFF
HASH, HASH_BITS = 0x9E3779B1, 12  # of the three bytes that a needle begins with


class _Word(ctypes.Structure):
    _fields_ = [("hash", ctypes.c_uint64), ("lists", ctypes.c_uint64)]


class _Needle(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("beginning", "place", "length")),
        *((name, ctypes.c_int32) for name in ("group", "folded")),
    ]


class Tables(ctypes.Structure):
    """Addresses of the tables, and limits. Keeps what it points to.

    Attributes:
        address: of itself.
    """

    _fields_ = [
        ("kinds", ctypes.c_void_p),
        ("lower", ctypes.c_void_p),
        ("words", ctypes.c_void_p),
        ("word_lists", ctypes.c_int64),
        ("beginnings", ctypes.c_void_p),
        ("needles", ctypes.c_void_p),
        ("needle_count", ctypes.c_int64),
        ("needle_bytes", ctypes.c_char_p),
        *(
            (name, ctypes.c_int64)
            for name in ("known", "most_tokens_of", "head", "samples", "sample", "enough_stop_words")
        ),
    ]

    def __init__(self, library: ctypes.CDLL, kinds: npt.NDArray[np.uint16], lower: npt.NDArray[np.uint16]) -> None:
        words, (needles, beginnings, text) = _words(library), _needles()
        super().__init__(
            kinds=kinds.ctypes.data,
            lower=lower.ctypes.data,
            words=ctypes.addressof(words),
            word_lists=len(quality.STOP_WORDS),
            beginnings=beginnings.ctypes.data,
            needles=ctypes.addressof(needles),
            needle_count=len(needles),
            needle_bytes=text,
            known=len(kinds),
            most_tokens_of=measures.MOST_TOKENS_OF,
            head=quality.STOP_WORDS_IN[0],
            samples=language.SAMPLES,
            sample=language.SAMPLE,
            enough_stop_words=quality.ENOUGH_STOP_WORDS,
        )
        self._kept = (kinds, lower, words, beginnings, needles)
        self.address = ctypes.addressof(self)


def ascii(library: ctypes.CDLL) -> Tables:
    """The tables for ASCII, at once there; shapes (128,)."""
    return Tables(library, _kinds(128), _lower(128))


def unicode(library: ctypes.CDLL) -> Tables:
    """The tables for every text, which take a twentieth of a second; shapes (65536,)."""
    return Tables(library, _kinds(1 << 16), _lower(1 << 16))


def _kinds(known: int) -> npt.NDArray[np.uint16]:
    """What each of the first UTF-16 units is; shape (known,)."""
    characters = "".join(map(chr, range(known)))
    kinds = measures.classes(known).astype(np.uint16)

    def mark(bit: int, chosen: Any) -> None:
        kinds[chosen] |= bit

    def codes(chosen: str) -> list[int]:
        return [ord(character) for character in chosen if ord(character) < known]

    mark(SPACE, np.fromiter(map(str.isspace, characters), bool, known))
    mark(IRREGULAR, [match.start() for match in normalise.ODD.finditer(characters)])
    mark(IRREGULAR, [code for code in range(128, known) if _may_compose(characters[code])])
    mark(IRREGULAR, codes("".join(normalise.GBK_MOJIBAKE)))
    leads, followers = normalise.mojibake_characters()
    mark(LEAD, codes("".join(leads)))
    mark(FOLLOW, codes("".join(followers)))
    of_scripts = scripts.script_table()[:known]
    mark(ANOTHER_SCRIPT, (of_scripts != 0) & (of_scripts != 1 + list(scripts.SCRIPTS).index("Latin")))
    # What pii_view.py reads as a letter or part of a name, or leaves out, and what has a small letter in ASCII.
    mark(DISGUISED, codes(pii_view.HIDDEN + "\u212a\u0130"))
    full_width = {chr(code): chr(code - 0xFF01 + ord("!")) for code in range(0xFF01, 0xFF5F)}
    mark(DISGUISED, codes("".join(wide for wide, plain in full_width.items() if plain.isalpha() or plain in "_-")))
    mark(MARK_END, codes("".join(pages.LAST)))
    return kinds


def _may_compose(character: str) -> bool:
    """Whether a text with it, all other characters without it, may not be in NFC."""
    return (
        unicodedata.combining(character) > 0
        or character in _followers()
        or not unicodedata.is_normalized("NFC", character)
    )


@cache
def _followers() -> frozenset[str]:
    """Characters that become one with the character before them."""
    found = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # of Hangul, by a rule
    for character in map(chr, range(1 << 16)):
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return frozenset(found)


def _lower(known: int) -> npt.NDArray[np.uint16]:
    """The small letter of each of the first UTF-16 units; ``NO_CHARACTER`` where that is more than one; (known,)."""
    small = map(str.lower, map(chr, range(known)))
    return np.array([ord(one) if len(one) == 1 else NO_CHARACTER for one in small], np.uint16)


@cache
def _words(library: ctypes.CDLL) -> Any:
    """The hash table of words, each with the lists it is in, a bit for each list."""
    stop_words = enumerate(quality.STOP_WORDS + quality.STOP_CHARACTERS)
    lists = (*stop_words, (ENGLISH, ONLY_ENGLISH), (MOSTLY, MOSTLY_ENGLISH), (FOREIGN, language.not_english()))
    table = (_Word * SLOTS)()
    library.add_word.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_uint64)
    for number, words in lists:
        for word in words:
            library.add_word(table, raw := word.encode("utf-8"), len(raw), 1 << number)
    return table


@cache
def _needles() -> tuple[Any, npt.NDArray[np.uint64], bytes]:
    """The strings that steps look for, a bit for the hash of each beginning, and their bytes one after the other."""
    of_prose = [needle for rule in boilerplate.RULES if "prose" in rule.kinds for needle in rule.needles]
    names = [name.replace("-", dash) for name in pii_secrets._NAMES for dash in {"-", *pii_view.DASHES}]
    groups = (
        (PRIVATE, ["PRIVATE"]),
        (NAMES, names),
        (BOOK, gutenberg.BOOK),
        (NOTES, gutenberg.NOTES),
        (LINES, of_prose),
    )
    needles, text = [], b""
    beginnings = np.zeros(1 << HASH_BITS, np.bool_)
    for group, strings in groups:
        for raw in (string.encode("utf-8") for string in strings):
            assert len(raw) >= 3, raw
            beginning = int.from_bytes(raw[:3], "big") | 0x202020
            beginnings[(beginning * HASH & 0xFFFFFFFF) >> (32 - HASH_BITS)] = True
            needles.append(_Needle(beginning, len(text), len(raw), group, group == NAMES))
            text += raw
    return (
        (_Needle * len(needles))(*needles),
        np.packbits(beginnings, bitorder="little").view("<u8").astype(np.uint64),
        text,
    )
