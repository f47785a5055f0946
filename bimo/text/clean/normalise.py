"""One spelling for every character: NFC, mojibake repaired, invisible and private characters out, spaces made plain.

NFC, not NFKC (Unicode Standard Annex 15): NFKC turns ``，（）`` into ASCII, ``①`` into ``1`` and ``x²`` into ``x2``.
Mojibake is repaired by ftfy (Speer 2019, doi:10.5281/zenodo.2591652), only by its decoding part: the others narrow
full-width punctuation and uncurl quotes. UTF-8 read as GBK, which ftfy does not know, is repaired here. Characters
that nobody sees (Unicode's categories Cc, Cf, Co, Cn) go, except where they shape the letters around them.

Code keeps everything but control characters and a byte order mark: its strings may need their very characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from unicodedata import is_normalized, normalize

from bimo.config import setting
from bimo.errors import DataError
from bimo.text.document import Document, Step
from bimo.text.scan import facts_of

ROUNDS = 8  # until nothing changes; real text needs one, and one more to see it

# Joiners (ZWNJ, ZWJ) shape Arabic, Indic and Mongolian letters and hold emoji together; elsewhere they are litter.
_JOINED = "\u0590-\u08ff\u0900-\u109f\u1780-\u18af\u2190-\u2bff\ufe0f\U0001f000-\U0001faff\U00010a00-\U00011fff"
_INVISIBLE = (
    "\0-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc\ufffe\uffff"
    "\ufdd0-\ufdef\U0001fffe\U0001ffff"  # noncharacters
    "\ud800-\udfff"  # halves of surrogate pairs
    "\ue000-\uf8ff\U000f0000-\U0010ffff"  # private use: the glyphs of one font
)
_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f"  # not U+3000, with which Chinese text is laid out
_LINE_ENDS = "\x0b\x0c\r\u2028\u2029"
_TAGS = "\U000e0001-\U000e007f"  # invisible letters; they belong to the flags of England, Scotland and Wales alone

ODD = re.compile(f"[{_INVISIBLE}{_SPACES}{_LINE_ENDS}{_TAGS}\u200c\u200d]")
ODD_ASCII = re.compile("[\0-\x08\x0b-\x1f\x7f]")
CONTROLS = re.compile("[\0-\x08\x0e-\x1f\x7f]")  # a form feed is white space to compilers

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours of terminals (ECMA-48, section 5.4)
OVERSTRUCK = re.compile(r"[^\n\x08]\x08")  # how manual pages print bold
SOFT_BREAK = re.compile(r"\xad[ \t]*\n[ \t]*([^\s\xad]+) ?")
HARD_BREAK = re.compile(r"[\x02\ufffe](?=[ \t]*(?:\r?\n|\r))")  # pdfium's sign for a hyphen at the end of a line
LINE_END = re.compile(f"\r\n|[{_LINE_ENDS}]")
SPACE = re.compile(f"[{_SPACES}]")
WINDOWS = re.compile("[\x80-\x9f]")  # quotes and dashes of Windows-1252 that were read as Latin-1
BULLET = re.compile("[\uf0a7\uf0b7\uf0d8]")  # of the font Wingdings
JOINER = re.compile(f"(?<![{_JOINED}])[\u200c\u200d]+|[\u200c\u200d]+(?![{_JOINED}])")
TAG = re.compile(f"(?<![\U0001f3f4{_TAGS}])[{_TAGS}]+")
INVISIBLE = re.compile(f"[{_INVISIBLE}]+")


def mojibake_characters() -> tuple[set[str], set[str]]:
    """What the first and the second byte of UTF-8 look like in the encodings ftfy knows."""
    leads, followers = set(), set()
    for encoding in ("latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257", "iso8859-2", "mac-roman"):
        leads |= set(bytes(range(0xC2, 0xF5)).decode(encoding, "ignore"))
        followers |= set(bytes(range(0x80, 0xC0)).decode(encoding, "ignore"))
    leads |= set("ΓÇ┬├")  # code page 437: quotes, dashes, accented letters
    followers |= set("ÇÉæÆôöòûùÿÖÜ¢£¥₧ƒ")
    leads -= set("…–—‘’“”")  # MacRoman's Cyrillic: they are in all other text
    return leads, followers


MOJIBAKE = re.compile(
    "[{}][{}]".format(*("".join(map(re.escape, sorted(kind))) for kind in mojibake_characters()))
)  # only says where to look: ftfy decides
GBK_MOJIBAKE = ("锛", "銆")  # how the first bytes of full-width commas and stops look; both are rare characters
USUAL = bytes([9, 10, *range(32, 127)])
NOT_ASCII = re.compile(r"[^\0-\x7f]{2,}")


@dataclass(frozen=True, slots=True)
class Config:
    """What is made regular."""

    on: bool = setting(True, "one spelling for every character: NFC, no invisible characters, plain spaces")
    mojibake: bool = setting(True, "repair text that was decoded with the wrong encoding; needs bimo[text]")
    blank_lines: int = setting(2, "how many blank lines in a row are kept; more are layout of a page, not of text")


def build(config: Config) -> Step:
    """The step.

    Raises:
        DataError: mojibake is to be repaired, and ftfy is not installed.
    """
    if config.mojibake:
        _require_ftfy()
    most = "\n" * (max(config.blank_lines, 0) + 1)
    too_many = re.compile(most + "\n+")

    def step(document: Document) -> Document:
        if document.kind == "code":
            return _code(document)
        facts = facts_of(document.text)
        if facts and not facts.irregular and not facts.untidy and facts.newline_run <= len(most):
            return document
        done: Counter[str] = Counter()
        text = document.text
        for _ in range(ROUNDS):
            before = text
            text = _characters(text, config.mojibake, done)
            if document.kind != "table":  # a row may end in empty cells
                text = _layout(text, most, too_many, done)
            if text == before:
                break
        return document.changed(text, _note(done))

    return step


def _require_ftfy() -> None:
    try:
        import ftfy  # noqa: F401
    except ModuleNotFoundError:
        fix = "pip install 'bimo[text]', or --set clean.normalise.mojibake=false."
        raise DataError("Repairing mojibake needs ftfy.", fix=fix) from None


def _note(done: Counter[str]) -> str:
    return "normalise: " + ", ".join(f"{what} ({count})" for what, count in done.items() if count)


def _code(document: Document) -> Document:
    text = document.text
    if CONTROLS.search(text):
        text = CONTROLS.sub("", text)
    text = text.lstrip("\ufeff")
    return document.changed(text, f"normalise: control characters removed ({len(document.text) - len(text)})")


def _characters(text: str, mojibake: bool, done: Counter[str]) -> str:
    if text.isascii():
        odd = set(ODD_ASCII.findall(text))
        return _visible(text, "".join(odd), done) if odd else text
    if not is_normalized("NFC", text):
        text = normalize("NFC", text)
        done["times put into NFC"] += 1
    rest = _unusual(text)  # short in most languages: the slower patterns look here first
    if mojibake and (MOJIBAKE.search(rest) or any(mark in rest for mark in GBK_MOJIBAKE)):
        text = NOT_ASCII.sub(lambda match: _from_gbk(match[0], done), _repaired(text, done))
        rest = _unusual(text)
    odd = set(ODD.findall(rest))
    return _visible(text, "".join(odd), done) if odd else text


def _unusual(text: str) -> str:
    """The text without its usual ASCII characters."""
    return text.encode("utf-8", "surrogatepass").translate(None, USUAL).decode("utf-8", "surrogatepass")


def _repaired(text: str, done: Counter[str]) -> str:
    from ftfy import fix_encoding

    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line.isascii() and MOJIBAKE.search(line):
            lines[number] = fix_encoding(line)
            done["lines of mojibake repaired"] += lines[number] != line
    return "\n".join(lines)


def _from_gbk(run: str, done: Counter[str]) -> str:
    if not any(mark in run for mark in GBK_MOJIBAKE):
        return run
    try:
        repaired = run.encode("gb18030").decode("utf-8")
    except UnicodeError:  # most text is not mojibake
        return run
    done["runs of mojibake repaired"] += 1
    return repaired


def _visible(text: str, odd: str, done: Counter[str]) -> str:
    """The text without the characters ``odd``, which are those of ``ODD`` that are in it."""

    def replace(pattern: re.Pattern[str], by: str | Callable[[re.Match[str]], str], what: str) -> None:
        nonlocal text
        text, count = pattern.subn(by, text)
        done[what] += count

    if "\x1b" in odd:
        replace(ESCAPES, "", "terminal codes removed")
    if "\x08" in odd:
        replace(OVERSTRUCK, "", "overstruck characters removed")
    if "\x02" in odd or "\ufffe" in odd:
        replace(HARD_BREAK, "-", "hyphens restored")
    if LINE_END.search(odd):
        replace(LINE_END, "\n", "line ends made plain")
    if "\xad" in odd:
        replace(SOFT_BREAK, r"\1" + "\n", "words put together at soft hyphens")
    if SPACE.search(odd):
        replace(SPACE, " ", "odd spaces made plain")
    if WINDOWS.search(odd):
        replace(WINDOWS, _from_windows, "Windows-1252 characters restored")
    if BULLET.search(odd):
        replace(BULLET, "•", "bullets restored")
    if "\u200c" in odd or "\u200d" in odd:
        replace(JOINER, "", "runs of invisible characters removed")
    if TAG.search(odd):
        replace(TAG, "", "runs of invisible characters removed")
    if INVISIBLE.search(odd):
        replace(INVISIBLE, "", "runs of invisible characters removed")
    return text


def _from_windows(match: re.Match[str]) -> str:
    return match[0].encode("latin-1").decode("cp1252", "ignore")  # five of the 32 are nothing there


def _layout(text: str, most: str, too_many: re.Pattern[str], done: Counter[str]) -> str:
    if " \n" in text or "\t\n" in text or "\u3000\n" in text or text[-1:] in (" ", "\t", "\u3000"):
        lines = text.split("\n")
        stripped = [line.rstrip(" \t\u3000") for line in lines]
        done["line ends stripped"] += sum(map(str.__ne__, lines, stripped))
        text = "\n".join(stripped)
    if most + "\n" in text:
        text, count = too_many.subn(most, text)
        done["runs of blank lines shortened"] += count
    if text.startswith("\n") or text.endswith("\n\n"):
        text = text.strip("\n") + "\n" * text.endswith("\n")
        done["ends stripped"] += 1
    return text
