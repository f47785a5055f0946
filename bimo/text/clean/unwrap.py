"""Paragraphs in one line each, where a typewriter, a mail program or a PDF broke them at a width.

A block of lines is joined only when it looks filled: a line ends where the first word of the next would not have
fitted. Greedy line filling leaves that trace in all text that was wrapped, and verse, addresses, lists, tables, plays
and code do not have it. A block of four lines and more is judged by itself; two or three lines are too few, and are
judged by the width that the longer blocks of their document have. Chinese and Japanese lines, which may end after any
character, must all be full, and must not mostly end with punctuation, as lines of verse do; they join without a space.

Whether "well-" and "known" keep their hyphen is looked up in the rest of the document.

It is on: in the plays and poems of Shakespeare it joins stage directions and some speeches in prose, and not one line
of verse; in Tang and Song poems, nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median_high

from bimo.config import setting
from bimo.text.document import Document, Step
from bimo.text.scan import facts_of

ROUNDS = 4
NARROWEST, WIDEST = 50, 160  # columns of wrapped prose; verse is narrower, other lines are not wrapped
NARROWEST_CJK = 30  # columns, which are fifteen characters
ENOUGH_LINES = 4  # that a block says by itself that it is filled
SLACK = 2  # columns
MOST_CAPITALS = 0.5  # of the lines after the first; verse begins each with one
MOST_STOPS = 0.4  # of the line ends within a block

ENTRY = re.compile(r"\s*(?:[-*+•–#]\s|[|>]|\d{1,3}[.)]\s|[(\[]?[a-zA-Z0-9]{1,3}[)\]]\s)")  # of a list, quote or table
COLUMNS = ("   ", "\t", ".....", ". . . .", ";;", "{\n", "}\n", ";\n}", " | ")  # tables, tables of contents, code
STOP = tuple(".!?:;\"'”’)]…。！？：；”’」』）")
STOP_CJK = tuple("。！？：；，、”’」』）…—,.!?")
LETTERS = b" \nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST_MEAN_WORD = 16
LEAST_LETTERS_PER_SIGN = 6
OPENING = "\"'“‘([_*"
WIDE = re.compile(
    "[\u2e80-\u2fff\u3000-\u30ff\u31f0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\U00020000-\U0003ffff]"
)
SPACED = re.compile("[\u3400-\u9fff] [A-Za-z0-9]|[A-Za-z0-9] [\u3400-\u9fff]")
HYPHENATED = re.compile(r"\w-$")
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
LAST_WORD = re.compile(r"(?<![^\s(\[\"'“‘«])[^\W\d_]+(?=-$)")
BROKEN_WORD = re.compile(r"\S+-\n\s*\S+")
AND = ("and ", "or ", "to ", "und ", "oder ")  # pre- and post-war


@dataclass(frozen=True, slots=True)
class Config:
    """Whether it is done."""

    on: bool = setting(True, "join the lines of wrapped paragraphs; verse, lists, tables and code stay as they are")


def build(config: Config) -> Step:
    """The step."""

    def step(document: Document) -> Document:
        if document.kind not in ("prose", "mail"):
            return document
        text = document.text
        if (facts := facts_of(text)) and facts.longest_block < ENOUGH_LINES:
            return document
        done = Counter[str]()
        for _ in range(ROUNDS):
            breaks = text.count("\n")
            if not breaks or len(text) > 2 * WIDEST * breaks:  # one paragraph a line
                break
            before, text = text, _unwrapped(text, done)
            if text == before:
                break
        counts = ", ".join(f"{what} ({count})" for what, count in done.items() if count)
        return document.changed(text, f"unwrap: {counts}")

    return step


def _unwrapped(text: str, done: Counter[str]) -> str:
    lines = text.split("\n")
    blocks = list(_blocks(lines))
    widths = [_width_if_filled(lines[begin:end]) if end - begin >= ENOUGH_LINES else 0 for begin, end in blocks]
    known = [width for width in widths if width]
    if not known:
        return text
    usual = median_high(known)
    joiner = Joiner(text)
    result: list[str] = []
    copied = 0
    for (begin, end), width in zip(blocks, widths, strict=True):
        if width or (1 < end - begin < ENOUGH_LINES and _width_if_filled(lines[begin:end], usual)):
            result += lines[copied:begin]
            result.append(joiner.joined(lines[begin:end]))
            copied = end
            done["paragraphs joined"] += 1
    done["words put together at hyphens"] += joiner.closed
    return "\n".join(result + lines[copied:])


def _blocks(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Begin and end of runs of lines; a blank line ends a run, an indented line begins one."""
    begin = 0
    for number, line in enumerate(lines):
        if not line or line[0].isspace():
            if number > begin:
                yield begin, number
            begin = number if line.strip() else number + 1
    if len(lines) > begin:
        yield begin, len(lines)


def _width_if_filled(block: list[str], usual: int = 0) -> int:
    """The width in columns at which a block was wrapped; 0 when it was not wrapped, or not at about ``usual``."""
    followers = block[1:]
    wide = WIDE.match(block[0][-1]) is not None
    columns = list(map(columns_of, block)) if wide else list(map(len, block))
    width = max(columns)
    if not (NARROWEST_CJK if wide else NARROWEST) <= width <= WIDEST or (usual and width > usual + 2):
        return 0
    if sum(follower.lstrip(OPENING)[:1].isupper() for follower in followers) > MOST_CAPITALS * len(followers):
        return 0
    width = max(width, usual)
    room = [width - SLACK - taken for taken in columns[:-1]]
    stop = STOP_CJK if wide else STOP
    loose = [number for number, follower in enumerate(followers) if _to_break(follower) <= room[number]]
    if len(loose) > len(followers) // 8 or any(not number or block[number].endswith(stop) for number in loose):
        return 0  # a few writers wrapped by hand; but the first may be a heading, and one with a stop ends a paragraph
    stops = sum(line.rstrip().endswith(stop) for line in block[:-1])
    if stops > MOST_STOPS * len(followers) + (not wide):
        return 0
    together = "\n".join(block).lstrip()
    if not wide and not _is_ragged_words(together, columns):
        return 0
    entries = sum(map(bool, map(ENTRY.match, followers)))  # the first may be one that was wrapped itself
    return 0 if entries > len(followers) // 4 or any(sign in together for sign in COLUMNS) else width


def _is_ragged_words(block: str, columns: list[int]) -> bool:
    """Whether it is neither numbers, nor a dump in long words, nor lines of one fixed length."""
    signs = len(block.encode("ascii", "ignore").translate(None, LETTERS))
    long_words = block.count(" ") * LONGEST_MEAN_WORD < len(block)
    return (
        signs * LEAST_LETTERS_PER_SIGN < len(block) and not long_words and len(set(columns)) >= min(3, len(columns) - 1)
    )


def columns_of(line: str) -> int:
    """The width of a line where Chinese and Japanese characters take two columns."""
    return len(line) + len(WIDE.findall(line))


def _to_break(follower: str) -> int:
    """The columns that the first word of a line and a space would have taken."""
    if WIDE.match(follower):
        return 5  # two characters, as a stop cannot begin a line, and half of one
    space = follower.find(" ")
    return (len(follower) if space < 0 else space) + 1


class Joiner:
    """Joins lines of a text into one; looks words up in it, once a hyphen asks for them.

    Attributes:
        closed: how many hyphens at line ends it has dropped.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = 0
        self._words: Counter[str] | None = None

    def joined(self, block: list[str]) -> str:
        """The lines, none of them blank, as one."""
        if not any(line.rstrip().endswith(("-", "—")) or WIDE.match(line[-1]) for line in block):
            return " ".join(map(str.rstrip, block))
        parts = [block[0].rstrip()]
        for follower in block[1:]:
            last, follower = parts[-1], follower.rstrip()
            between = self._between(last, follower)
            if between is None:
                parts[-1] = last[:-1]
                self.closed += 1
            parts += [between or "", follower]
        return "".join(parts)

    def _between(self, last: str, follower: str) -> str | None:
        """What stands between two lines; None: nothing, and the hyphen goes, too."""
        wide = bool(WIDE.match(last[-1])), bool(WIDE.match(follower))
        if any(wide):
            return " " if not all(wide) and SPACED.search(self.text) else ""
        if last[-1] == "—" or last.endswith("--"):
            return ""
        if not HYPHENATED.search(last, len(last) - 2) or follower.startswith(AND):
            return " "
        if not follower[0].islower():
            return ""
        left, right = LAST_WORD.search(last, max(0, len(last) - 40)), WORD.match(follower)
        return None if left and right and not self._keeps_hyphen(left[0], right[0]) else ""

    def _keeps_hyphen(self, left: str, right: str) -> bool:
        if self._words is None:
            self._words = Counter(WORD.findall(BROKEN_WORD.sub(" ", self.text).lower()))
        words, left, right = self._words, left.lower(), right.lower()
        apart, together = words[f"{left}-{right}"], words[left + right]
        if apart or together:
            return apart > together
        return bool(words[left] and words[right])
