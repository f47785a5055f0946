r"""Rich Text Format (Microsoft's specification, 1.9.1), by a small parser of our own.

A character beyond ASCII is ``\uN``, with a substitute after it for readers of before 1997, or bytes ``\'xx`` in the
code page of its font, such as GB 2312; the first byte of a pair may be followed by a plain letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bimo.text.decode import ByteStream, CutShort, Unreadable
from bimo.text.readers.record import Options, Record
from bimo.text.readers.sections import joined_blocks, sections
from bimo.text.readers.streams import whole

TOKEN = re.compile(
    rb"\\(?P<word>[A-Za-z]{1,32})(?P<number>-?\d{1,9})? ?|\\'(?P<byte>[0-9A-Fa-f]{2})|\\(?P<sign>[^A-Za-z])"
    rb"|(?P<brace>[{}])|(?P<plain>[^\\{}\r\n\0]+)|[\r\n\0]+|\\",
    re.DOTALL,
)
DEEPEST = 10_000  # groups within each other
# Groups that are no text of the document, and those marked as to be ignored that are.
SKIPPED = frozenset((
    "annotation", "atnauthor", "atnid", "colortbl", "filetbl", "fldinst", "footer", "footerf", "footerl", "footerr",
    "ftncn", "ftnsep", "ftnsepc", "aftncn", "aftnsep", "aftnsepc", "generator", "header", "headerf", "headerl",
    "headerr", "info", "listoverridetable", "listtable", "listtext", "nonshppict", "objdata", "pict", "pntext",
    "revtbl", "rxe", "shprslt", "sp", "stylesheet", "tc", "tcn", "xe",
))  # fmt: skip
KEPT = frozenset(("fldrslt", "footnote", "shpinst", "shptxt"))
CHARACTERS = {
    "bullet": "•", "emdash": "—", "emspace": " ", "endash": "–", "enspace": " ", "ldblquote": "“", "line": "\n",
    "lquote": "‘", "nestcell": "\t", "nestrow": "\n", "qmspace": " ", "rdblquote": "”", "rquote": "’", "tab": "\t",
}  # fmt: skip
SIGNS = {b"~": "\xa0", b"_": "-"}
BREAKS = ("par", "page", "sect", "column")
STRUCTURE = frozenset((*BREAKS, "cell", "row", "u"))  # never a substitute for a character
SETS = {"ansi": "cp1252", "mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
EAST = ("gb18030", "big5hkscs", "cp932", "cp949")
CHARSETS = {  # \fcharset -> how Python calls its code page; 1 and others: the document's
    77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5hkscs", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874",
    238: "cp1250",
}  # fmt: skip
PAGES = {936: "gb18030", 950: "big5hkscs", 10000: "mac_roman", 65001: "utf-8"}
SCRIPTS = ("loch", "hich", "dbch")  # characters of one byte below and above 127, and of two


def read_rtf(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The paragraphs and tables of a text, then its footnotes.

    Headers, footers, comments, hidden and deleted text are left out. A file of more than 64 MB is refused.

    Raises:
        Unreadable: it is no such text, or cut short.
    """
    data = whole(stream).lstrip()
    if not data.startswith(b"{\\rtf"):
        raise Unreadable("no RTF file: it does not begin with {\\rtf")
    yield from sections(joined_blocks(_Parser().blocks(data)))


@dataclass(frozen=True)
class _State:
    """What holds inside a group, until it ends.

    Attributes:
        skipped: whether its text is left out; ``hidden``: by a property of its characters.
        fonts: the number of the font for each of ``SCRIPTS``; ``script``: the one in use.
        substitutes: characters that stand after each ``\\u`` for older readers.
    """

    skipped: bool = False
    hidden: bool = False
    in_fonts: bool = False
    in_note: bool = False
    fonts: tuple[int, ...] = (-1, -1, -1)
    script: int = 0
    substitutes: int = 1


@dataclass
class _Block:
    """A paragraph or row while it is read: its text, in pieces, and what it is."""

    pieces: list[str] = field(default_factory=list)
    is_item: bool = False
    in_table: bool = False

    def take(self) -> str:
        """Its text, which is then empty."""
        text, self.pieces = "".join(self.pieces), []
        return text


class _Parser:
    def __init__(self) -> None:
        self._state, self._outer = _State(), list[_State]()
        self._page, self._fonts, self._font, self._default = "cp1252", dict[int, str](), -1, -1
        self._held, self._half = bytearray(), ""  # bytes of characters; half of a surrogate pair
        self._to_skip, self._ignorable = 0, False  # substitutes for older readers; whether the next word may be
        self._body, self._note, self._notes = _Block(), _Block(), list[str]()
        self._cells, self._rows = list[str](), list[str]()
        self._ready: list[tuple[str, bool]] = []

    def blocks(self, data: bytes) -> Iterator[tuple[str, bool]]:
        """Each paragraph and table with its text, and whether it is an item of a list."""
        at = 0
        while at < len(data):
            found = TOKEN.match(data, at)
            assert found, "every byte begins a token"
            at = found.end() + self._take(found)
            yield from self._ready
            self._ready.clear()
            if not self._outer:  # what follows the last brace is nothing
                break
        self._body.in_table = False
        self._end_paragraph()
        self._end_table()
        yield from self._ready
        yield from ((note, False) for note in self._notes)
        if self._outer:
            raise CutShort("cut short: a group is never closed")

    def _take(self, found: re.Match[bytes]) -> int:
        """Read a token; returns how many bytes of data follow it, which are no tokens."""
        kind = found.lastgroup
        if kind in ("word", "number"):
            number = int(found["number"]) if found["number"] else None
            return self._word(found["word"].decode("ascii"), number)
        if kind == "byte":
            self._bytes(bytes([int(found["byte"], 16)]))
        elif kind == "plain":
            self._bytes(found["plain"])
        elif kind == "brace":
            self._brace(found["brace"])
        elif kind == "sign":
            self._sign(found["sign"])
        return 0

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._to_skip = 0
        if brace == b"{":
            if len(self._outer) >= DEEPEST:
                raise Unreadable(f"damaged RTF file: more than {DEEPEST:,} groups within each other")
            self._outer.append(self._state)
            self._ignorable = False
        elif self._outer:
            was, self._state = self._state, self._outer.pop()
            if was.in_note and not self._state.in_note and (text := self._note.take().strip()):
                self._notes.append(text)

    def _sign(self, sign: bytes) -> None:
        if sign == b"*":
            self._ignorable = True
        elif sign in b"\r\n":
            self._break()
        elif sign in SIGNS:
            self._text(SIGNS[sign])
        elif sign in b"\\{}":  # which may be the second half of a character
            self._bytes(sign)

    def _word(self, word: str, number: int | None) -> int:
        ignorable, self._ignorable = self._ignorable, False
        if word == "bin":
            return max(number or 0, 0)
        if word in STRUCTURE:
            self._to_skip = 0
        elif self._to_skip:  # it stands for a character
            self._to_skip -= 1
            return 0
        self._flush()
        if word in SKIPPED or (ignorable and word not in KEPT):
            self._state = replace(self._state, skipped=True)
        elif word == "fonttbl":
            self._state = replace(self._state, skipped=True, in_fonts=True)
        elif word == "footnote":
            self._state = replace(self._state, in_note=True)
        elif word in CHARACTERS:
            self._text(CHARACTERS[word])
        elif word == "u" and number is not None:
            self._unicode(number & 0xFFFF)
        elif word in BREAKS:
            self._break()
        elif word in ("cell", "row"):
            self._end_cell(word)
        else:
            self._property(word, number)
        return 0

    def _property(self, word: str, number: int | None) -> None:
        state = self._state
        if word in SETS or word == "ansicpg":
            self._page = SETS.get(word) or _page(number)
        elif word == "deff":
            self._default = number or 0
        elif word in ("f", "af") and number is not None:
            self._font = number
            fonts = tuple(number if at == state.script else font for at, font in enumerate(state.fonts))
            self._state = replace(state, fonts=fonts)
        elif word in SCRIPTS:
            self._state = replace(state, script=SCRIPTS.index(word))
        elif word == "fcharset" and state.in_fonts and number in CHARSETS:
            self._fonts[self._font] = CHARSETS[number]
        elif word == "fcharset" and state.in_fonts and number == 0 and self._page in EAST:
            self._fonts[self._font] = "cp1252"  # elsewhere many write 0 and mean the page of the document
        elif word == "cpg" and state.in_fonts and number:
            self._fonts[self._font] = _page(number)
        elif word == "uc":
            self._state = replace(state, substitutes=max(number or 0, 0))
        elif word in ("v", "deleted"):
            self._state = replace(state, hidden=number != 0)
        elif word == "plain":
            self._state = replace(state, hidden=False, fonts=(-1, -1, -1), script=0)
        elif word == "pard":
            self._body.is_item = self._body.in_table = False
        elif word == "intbl":
            self._body.in_table = True
        elif word == "ls":
            self._body.is_item = True

    def _bytes(self, data: bytes) -> None:
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        if not (self._state.skipped or self._state.hidden):
            self._held += data[skipped:]

    def _flush(self) -> None:
        """Decode the bytes that were read since the last word or brace."""
        if self._held:
            data, self._held = bytes(self._held), bytearray()
            self._text(data.decode("ascii") if data.isascii() else data.decode(self._encoding(), "replace"))

    def _encoding(self) -> str:
        font = self._state.fonts[self._state.script]
        return self._fonts.get(self._default if font < 0 else font, self._page)

    def _unicode(self, unit: int) -> None:
        self._to_skip = self._state.substitutes
        if 0xD800 <= unit < 0xDC00:
            self._half = chr(unit)
        elif 0xDC00 <= unit < 0xE000:
            pair = (self._half + chr(unit)).encode("utf-16-le", "surrogatepass")
            self._text(pair.decode("utf-16-le", "replace"))
        else:
            self._text(chr(unit))

    def _text(self, text: str) -> None:
        self._flush()
        state = self._state
        if not (state.skipped or state.hidden):
            (self._note if state.in_note else self._body).pieces.append(text)
            self._half = ""

    def _break(self) -> None:
        self._flush()
        if self._state.in_note:
            self._note.pieces.append("\n")
        elif not self._state.skipped:
            self._end_paragraph()

    def _end_paragraph(self) -> None:
        self._flush()
        if self._cells or self._body.in_table:  # of a cell: its next paragraph follows
            self._body.pieces.append(" ")
            return
        text = self._body.take()
        if text.strip():
            self._end_table()
            self._ready.append((text.strip("\n"), self._body.is_item))

    def _end_cell(self, word: str) -> None:
        if self._state.skipped or self._state.in_note:
            return
        if word == "cell":
            self._cells.append(" ".join(self._body.take().split()))
        else:
            self._rows.append("\t".join(self._cells))
            self._cells = []

    def _end_table(self) -> None:
        if self._rows or self._cells:
            rows = [*self._rows, "\t".join(self._cells)] if self._cells else self._rows
            self._ready.append(("\n".join(rows), False))
            self._rows, self._cells = [], []


def _page(number: int | None) -> str:
    name = PAGES.get(number or 0, f"cp{number}")
    try:
        return name if number and "".encode(name) == b"" else "cp1252"
    except LookupError:
        return "cp1252"
