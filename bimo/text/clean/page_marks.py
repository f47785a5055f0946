"""Text without the page numbers and running heads that stand between the pages of a PDF or a scanned book.

A mark is a line that is a number (``- 12 -``, ``Page 12 of 40``, ``第12页``), or the same words with one (``12 THE
WHALE``). Marks go when they count up through the document and a quarter of them, and two, stand in the middle of a
sentence: chapters and poems that are numbered, and lists, do not. Where a mark broke a sentence, the blank lines
around it go, too. A line that recurs beside the marks is a running head.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from bimo.config import setting
from bimo.text.document import Document, Step

ROUNDS = 8
LEAST_MARKS = 3
LEAST_BROKEN = 0.25  # of the marks inside a sentence
MARK_LENGTH = 80  # characters
LINE_LENGTH = 15  # characters: a shorter line may be an item of a list, and no sentence
NEAR = 3  # lines between a mark and a running head

MARK = re.compile(
    r"""(?:[-–—\[(|~·]\s*)? (?:(?:page|p\.|seite|第)\s*)? (?P<number>\d{1,4})
        (?:\s*(?:of|/|von)\s*\d{1,4})? \s*(?:页|頁|ページ|,?\s*共\s*\d+\s*页)* (?:\s*[-–—\])|~·])?
      | (?P<left>\d{1,4})\s+(?P<head>\D{3,70}) | (?P<title>\D{3,70})\s+(?P<right>\d{1,4})""",
    re.IGNORECASE | re.VERBOSE,
)
DIGITS = frozenset("0123456789")
LAST = DIGITS | frozenset("-–—])|~·页頁ジ")  # of lines that may be marks
SENTENCE_END = tuple(".!?:;\"'”’)]…。！？：；」』）")


@dataclass(frozen=True, slots=True)
class Config:
    """Whether it is done."""

    on: bool = setting(True, "remove page numbers and running heads that stand in the middle of sentences")


def build(config: Config) -> Step:
    """The step."""

    def step(document: Document) -> Document:
        if document.kind != "prose":
            return document
        lines = document.text.split("\n")
        for _ in range(ROUNDS):
            gone = _marks(lines)
            if not gone:
                break
            lines = [line for number, line in enumerate(lines) if number not in gone]
        removed = document.text.count("\n") + 1 - len(lines)
        return document.changed("\n".join(lines), f"page_marks: {removed} lines removed")

    return step


def _marks(lines: list[str]) -> set[int]:
    """The numbers of the lines to remove."""
    candidates: defaultdict[str, dict[int, int]] = defaultdict(dict)  # the words of a mark -> line -> page
    for number, line in enumerate(lines):
        if not (line[-1:] in LAST or line[:1] in DIGITS) or len(line) > MARK_LENGTH:
            continue
        if found := MARK.fullmatch(line.strip()):
            words = (found["head"] or found["title"] or "").strip()
            if words[:1].islower():  # an entry of an index
                continue
            candidates[words][number] = int(found["number"] or found["left"] or found["right"])
    gone: set[int] = set()
    for pages in candidates.values():
        count = _longest_count(pages) if len(pages) >= LEAST_MARKS else []
        if len(count) < LEAST_MARKS:
            continue
        marks = {*count, *_running_heads(lines, count)}
        broken = {mark for mark in count if _breaks_sentence(lines, mark, marks)}
        if len(broken) >= max(2, LEAST_BROKEN * len(count)):
            gone |= marks
            for mark in marks:  # blank lines on one side are enough; inside a sentence there are none
                if mark in broken or (mark and not lines[mark - 1].strip()):
                    gone.update(range(mark, _nearest(lines, mark, 1, marks)))
                if mark in broken:
                    gone.update(range(mark, _nearest(lines, mark, -1, marks), -1))
    return gone


def _longest_count(pages: dict[int, int]) -> list[int]:
    """The lines, in order, of the longest count upwards; two pages in a row may lack their number."""
    last: dict[int, int] = {}  # page -> the line where the longest count to it ends
    length: dict[int, int] = {}
    before: dict[int, int | None] = {}
    for line, page in pages.items():
        ends = [last[earlier] for earlier in (page - 1, page - 2, page - 3) if earlier in last]
        before[line] = max(ends, key=length.__getitem__, default=None)
        length[line] = 1 + max((length[end] for end in ends), default=0)
        if page not in last or length[line] > length[last[page]]:
            last[page] = line
    count: list[int] = []
    line_or_none: int | None = max(length, key=length.__getitem__)
    while line_or_none is not None:
        count.append(line_or_none)
        line_or_none = before[line_or_none]
    return count[::-1]


def _running_heads(lines: list[str], count: list[int]) -> list[int]:
    near: defaultdict[str, list[int]] = defaultdict(list)
    for mark in count:
        for way in (-1, 1):
            line = _nearest(lines, mark, way, set())
            if 0 <= line < len(lines) and abs(line - mark) <= NEAR and len(lines[line]) <= MARK_LENGTH:
                near[lines[line].strip()].append(line)
    return [line for found in near.values() if len(found) >= LEAST_MARKS for line in found]


def _nearest(lines: list[str], mark: int, way: int, skipped: set[int]) -> int:
    """The next line before (``way`` is -1) or after a mark that says something; -1 or the number of lines: none."""
    line = mark + way
    while 0 <= line < len(lines) and (line in skipped or not lines[line].strip()):
        line += way
    return line


def _breaks_sentence(lines: list[str], mark: int, marks: set[int]) -> bool:
    above, below = (_nearest(lines, mark, way, marks) for way in (-1, 1))
    if above < 0 or below >= len(lines):
        return False
    last, following = lines[above].strip(), lines[below].strip()
    goes_on = following[0].islower() or (following[0].isalpha() and not following[0].isupper())
    return goes_on and len(last) >= LINE_LENGTH and not last.endswith(SENTENCE_END) and not last[-1].isdigit()
