"""Text from bytes that say how they are encoded, rightly, wrongly or not at all: pages and mails."""

from __future__ import annotations

import codecs
import re

from bimo.text.decode import BYTE_ORDER_MARKS

SEVEN_BIT = ("iso-2022-jp", "iso-2022-kr", "hz-gb-2312")  # what they write is valid UTF-8, too
# What is labelled by a narrow name is often written in the wide one, and reads the same where it is not.
WIDER = {"gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}
BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
SAMPLE = 1 << 14


def decoded(data: bytes, *declared: str | None) -> tuple[str, tuple[str, ...]]:
    """The text, and a note where it was not UTF-8; never fails.

    A byte order mark counts first. What is valid UTF-8 is UTF-8, as other encodings are hardly ever valid by chance.
    Then the first of the ``declared`` encodings that fits counts, then one that fits but for 2 % of the bytes beyond
    ASCII, then what the bytes look like; bytes that mean nothing become U+FFFD.
    """
    from resiliparse.parse.encoding import detect_encoding

    for mark, name in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(name, errors="replace"), _note(name)
    named = [_codec(name) for name in declared if name]
    wide = _wide(data[:SAMPLE]) if b"\0" in data else []
    seven_bit = [name for name in named if name in SEVEN_BIT] if data.isascii() else []
    if "cp1252" in named and not _western(data):
        named.remove("cp1252")
    candidates = [*wide, *seven_bit, "utf-8-sig", *named]
    for name in candidates:
        try:
            return data.decode(name), _note(name)
        except UnicodeError:
            continue
    beyond_ascii = len(data) - len(data.decode("ascii", errors="ignore"))
    candidates.append(_codec(detect_encoding(data) or ""))
    for name in candidates:
        text = data.decode(name, errors="replace")
        lost = text.count("\ufffd")
        if 50 * lost <= beyond_ascii or name == candidates[-1]:
            break
    return text, (*_note(name), *([f"{lost} undecodable bytes replaced"] if lost else ()))


def _codec(label: str) -> str:
    """Python's codec for what a page or a mail calls its encoding; UTF-8 for a name that means nothing."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    label = label.strip().lower()
    name = label if label in SEVEN_BIT else map_encoding_to_html5(label) or "utf-8"
    name = WIDER.get(name, name)
    try:
        return "utf-8-sig" if codecs.lookup(name).name == "utf-8" else name
    except LookupError:
        return "utf-8-sig"


def _wide(sample: bytes) -> list[str]:
    """UTF-16 without a byte order mark: Latin letters, spaces and line ends leave a zero in every second byte."""
    odd, even = sample[1::2].count(0), sample[::2].count(0)
    if max(odd, even) < max(4, len(sample) / 20):
        return []
    return ["utf-16-le"] if odd > 4 * even else ["utf-16-be"] if even > 4 * odd else []


def _western(data: bytes) -> bool:
    """Whether bytes beyond ASCII mostly stand alone, as accents do; Chinese sent as Latin-1 or ASCII has pairs."""
    runs = [len(run) for run in BEYOND_ASCII.findall(data[:SAMPLE])]
    return 4 * sum(length for length in runs if length > 1) < 3 * sum(runs) or not runs


def _note(name: str) -> tuple[str, ...]:
    return () if name == "utf-8-sig" else (f"decoded as {name}",)
