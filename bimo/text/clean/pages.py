"""The pages of a PDF or a scanned book made one text, without page numbers and running heads.

Where form feeds part the pages, as the PDF reader and many programs write them, first and last lines that recur on
other pages, or that count the pages, are running heads. Lines are joined where a long line's sentence goes on in the
next: a PDF has no blank lines between paragraphs, and its font makes the lines of a paragraph uneven, so that
``unwrap``, which looks at whole blocks, cannot judge them. Where few lines go on in small letters, as in verse, none
are joined.

Without form feeds, a mark is a line that is a number (``- 12 -``, ``Page 12 of 40``, ``第12页``), or the same words
with one (``12 THE WHALE``). Marks go when they count up through the document and a quarter of them, and two, stand in
the middle of a sentence: chapters and poems that are numbered, and lists, do not. Where a mark broke a sentence, the
blank lines around it go, too. A line that recurs beside the marks is a running head.

This step comes before ``normalise``, which turns form feeds into line ends.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from bimo.config import setting
from bimo.text.clean.unwrap import COLUMNS, ENTRY, Joiner, columns_of
from bimo.text.document import Document, Step
from bimo.text.scan import facts_of

ROUNDS = 8
LEAST_MARKS = 3
LEAST_BROKEN = 0.25  # of the marks inside a sentence
MARK_LENGTH = 80  # characters
LINE_LENGTH = 15  # characters: a shorter line may be an item of a list, and no sentence
HEAD_LINES = 3  # at the top of a page, and at its bottom
LEAST_WIDTH = 40  # columns of lines that are joined
LONG, FULL = 0.7, 0.88  # of the width that one line in ten has: may go on in the next; reaches the margin
LEAST_GOING_ON = 0.35  # of the long lines, those that go on in small letters or Chinese
NEAR = 3  # lines between a mark and a running head

MARK = re.compile(
    r"""(?:[-–—\[(|~·]\s*)? (?:(?:page|p\.|seite|第)\s*)? (?P<number>\d{1,4})
        (?:\s*(?:of|/|von)\s*\d{1,4})? \s*(?:页|頁|ページ|,?\s*共\s*\d+\s*页)* (?:\s*[-–—\])|~·])?
      | (?P<left>\d{1,4})\s+(?P<head>\D{3,70}) | (?P<title>\D{3,70})\s+(?P<right>\d{1,4})""",
    re.IGNORECASE | re.VERBOSE,
)
DIGITS = frozenset("0123456789")
LAST = DIGITS | frozenset("-–—])|~·页頁ジ")  # of lines that may be marks
NUMBER = re.compile(r"[0-9]{1,4}")
SECTION = re.compile(  # begins a line that begins a paragraph
    rf"(?:chapter|section|part|appendix|figure|table)\b|\d+(?:\.\d+)*\.?\s|第.{{1,4}}[章节回]|{ENTRY.pattern}",
    re.IGNORECASE,
)
SENTENCE_END = tuple(".!?:;\"'”’)]…。！？：；」』）")


@dataclass(frozen=True, slots=True)
class Config:
    """What is done."""

    on: bool = setting(True, "remove page numbers and running heads, and the breaks between pages")
    join: bool = setting(True, "where form feeds part the pages, join lines whose sentence goes on in the next")


def build(config: Config) -> Step:
    """The step."""

    def step(document: Document) -> Document:
        if document.kind != "prose":
            return document
        text = document.text
        paged = "\f" in text
        if not paged and (facts := facts_of(text)) and facts.mark_lines < LEAST_MARKS:
            return document
        done = Counter[str]()
        if paged:
            text = _one_text(text, done)
        text = _without_counted(text, done)
        if paged and config.join:
            text = _without_counted(_joined(text, done), done)
        return document.changed(text, "pages: " + ", ".join(f"{what} ({count})" for what, count in done.items()))

    return step


def _one_text(text: str, done: Counter[str]) -> str:
    """The pages without their heads; a blank line between two, where no sentence goes on."""
    pages = [page.strip("\n \t").split("\n") for page in text.split("\f")]
    for _ in range(HEAD_LINES):
        for edge in (0, -1):
            for page in _with_head(pages, edge):
                del pages[page][edge]
                while pages[page] and not pages[page][edge].strip():
                    del pages[page][edge]
                done["running heads removed"] += 1
    done["pages put together"] = len(pages)
    lines: list[str] = []
    for content in filter(any, pages):
        if lines and not _goes_on(lines[-1], content[0]):
            lines.append("")
        lines += content
    return "\n".join(lines)


def _with_head(pages: list[list[str]], edge: int) -> list[int]:
    """The pages whose first (``edge`` is 0) or last (-1) line is a head: it recurs, or its number counts the pages."""
    alike: defaultdict[str, list[int]] = defaultdict(list)
    counting: defaultdict[int, list[int]] = defaultdict(list)  # number on a page less its place in the file -> pages
    for place, lines in enumerate(pages):
        if not lines or not 0 < len(line := lines[edge].strip()) <= MARK_LENGTH:
            continue
        if any(map(str.isalpha, line)):
            alike[NUMBER.sub("#", line)].append(place)
        if numbers := NUMBER.findall(line):
            for number in {int(numbers[0]), int(numbers[-1])}:
                counting[number - place].append(place)
    heads = {place for group in alike.values() if len(group) >= LEAST_MARKS for place in group}
    numbered = max(counting.values(), key=len, default=[])
    return sorted(heads.union(numbered) if len(numbered) >= max(LEAST_MARKS, len(pages) // 10) else heads)


def _goes_on(line: str, follower: str) -> bool:
    """Whether a sentence does not end with a line, and seems to go on in the next."""
    line, first = line.rstrip(), follower[:1]
    return not line.endswith(SENTENCE_END) and (first.islower() or (first.isalpha() and not first.isupper()))


def _joined(text: str, done: Counter[str]) -> str:
    """The text with long lines joined to the next: where a sentence goes on, and where a line reaches the margin."""
    lines = text.split("\n")
    columns = list(map(columns_of, lines))
    widest = sorted(filter(None, columns))
    width = widest[len(widest) * 9 // 10] if widest else 0
    if width < LEAST_WIDTH:
        return text
    long, full = LONG * width, FULL * width
    open_ended = [
        number
        for number in range(len(lines) - 1)
        if columns[number] >= long and _continues(lines[number + 1]) and not _has_columns(lines[number])
    ]
    going_on = {number for number in open_ended if _goes_on(lines[number], lines[number + 1])}
    if len(going_on) < LEAST_GOING_ON * len(open_ended):
        return text
    filled = {number for number in open_ended if columns[number] >= full}
    joiner = Joiner(text)
    blocks: list[list[str]] = [[lines[0]]]
    for number, follower in enumerate(lines[1:]):
        ends = lines[number].rstrip().endswith(SENTENCE_END) and columns[number + 1] < long
        if number in going_on or (number in filled and not ends):
            blocks[-1].append(follower)
            done["lines joined"] += 1
        else:
            blocks.append([follower])
    joined = "\n".join(joiner.joined(block) if len(block) > 1 else block[0] for block in blocks)
    if joiner.closed:
        done["words put together at hyphens"] = joiner.closed
    return joined


def _continues(line: str) -> bool:
    """Whether it may be the next line of a paragraph."""
    return bool(line) and not line[0].isspace() and not SECTION.match(line) and not _has_columns(line)


def _has_columns(line: str) -> bool:
    return any(sign in line for sign in COLUMNS)


def _without_counted(text: str, done: Counter[str]) -> str:
    lines = text.split("\n")
    before = len(lines)
    for _ in range(ROUNDS):
        gone = _marks(lines)
        if not gone:
            break
        lines = [line for number, line in enumerate(lines) if number not in gone]
    if len(lines) == before:
        return text
    done["page marks removed"] += before - len(lines)
    return "\n".join(lines)


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
    last = lines[above].strip()
    return _goes_on(last, lines[below].strip()) and len(last) >= LINE_LENGTH and not last[-1].isdigit()
