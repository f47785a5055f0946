"""The page of a ledger: one HTML file with the funnel, the reasons, what changed, languages, lengths and duplicates."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from bimo import files
from bimo.errors import DataError
from bimo.report import facts as read
from bimo.report import ledger_words as words
from bimo.report.curves import SIDE, ticks
from bimo.report.diff import ADDED, SAME, Piece, diff, shortened
from bimo.report.templates import load, rendered
from bimo.report.words import Said
from bimo.text.clean.pii import KINDS as PERSONAL
from bimo.text.prepare.funnel import Account, Group, Stage
from bimo.text.prepare.part import EXAMPLE_CHARACTERS

MARGIN, AWAY, THIN = 120, 84, 3  # of the funnel's SIDE: beside the stream, how far a branch leads, its least width
ROW = 100  # height of a step in the funnel
MOST_REASONS, MOST_GROUPS = 40, 12
PLACEHOLDERS = re.compile("(" + "|".join(re.escape(placeholder) for _, placeholder, _ in PERSONAL.values()) + ")")
CUT = EXAMPLE_CHARACTERS * 9 // 10  # placeholders for personal data can make an excerpt shorter


def write_ledger_page(account: Account, path: Path) -> None:
    """Write the page.

    Raises:
        DataError: it cannot be written there.
    """
    try:
        files.write_text(path, render(account))
    except OSError as cause:
        fix = "Choose another path for --html."
        raise DataError(f"{path} cannot be written.", got=cause.strerror or str(cause), fix=fix) from None


def render(account: Account) -> str:
    """The page as HTML; everything that comes from documents is escaped."""
    totals = account.totals
    return rendered(
        template(),
        name=account.folder.resolve().name,
        folder=str(account.folder),
        account=account,
        totals=totals,
        lead=lead(account),
        share=100 * totals.bytes_out / totals.bytes_in if totals.bytes_in else 0.0,
        funnel=funnel(account.stages),
        reasons=reasons(account),
        changes=changes(account),
        languages=groups(totals.languages, words.LANGUAGES),
        kinds=groups(totals.kinds, words.KINDS),
        lengths=lengths(*totals.lengths.tolist()),
        sides=sides(account),
        crowds=[read.text(crowd) for crowd in account.manifest.get("crowds", [])],
        step_name=words.step_name,
    )


@functools.cache
def template() -> jinja2.Template:
    """The page's template."""
    return load("ledger.html.jinja", reason=words.reason, unprefixed=lambda note, step: note.removeprefix(f"{step}: "))


def lead(account: Account) -> Said:
    """What was prepared, in a sentence."""
    totals, source = account.totals, read.text(account.manifest.get("source"))
    found, kept = read.whole(totals.documents), read.whole(totals.kept)
    return Said(
        f"{kept} of {found} documents from {source} were kept; this page says what became of every one of them.",
        f"{source} 中的 {found} 篇文档保留了 {kept} 篇；本页说明每一篇的去向。",
    )


def funnel(stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """The rows of the picture: the stream of bytes through a step, what it takes from texts, and texts it leaves out.

    The stream runs down; what changes took away leaves it on the left, documents that are left out on the right.
    """
    left, right = [0.0], [float(stages[0].bytes)]
    for stage in stages[1:]:
        left.append(left[-1] + stage.bytes_changed)
        right.append(right[-1] - stage.bytes_dropped)
    low, high = min(left), max(right)
    scale = (SIDE - 2 * MARGIN) / (high - low or 1.0)
    left, right = ([MARGIN + scale * (place - low) for place in edge] for edge in (left, right))
    rows = []
    for place, stage in enumerate(stages[1:], 1):
        rows.append(
            {
                "stage": stage,
                "name": words.step_name(stage.name),
                "about": words.STEPS.get(stage.name, (None, None))[1],
                "stream": f"M{left[place]:.1f} 0H{right[place]:.1f}V{ROW}H{left[place]:.1f}Z",
                "taken": _branch(left[place - 1], left[place], -AWAY) if stage.changed else "",
                "dropped": _branch(right[place], right[place - 1], AWAY) if stage.dropped else "",
            }
        )
    return rows


def _branch(one: float, other: float, away: float) -> str:
    """A ribbon from the stretch between two places at the top of a row to the same stretch further out below."""
    begin, end = min(one, other), max(one, other)
    if end - begin < THIN:
        begin, end = (end - THIN, end) if away < 0 else (begin, begin + THIN)
    half = ROW / 2
    down = f"C{end:.1f} {half} {end + away:.1f} {half} {end + away:.1f} {ROW}"
    up = f"C{begin + away:.1f} {half} {begin:.1f} {half} {begin:.1f} 0"
    return f"M{begin:.1f} 0H{end:.1f}{down}H{begin + away:.1f}{up}Z"


def reasons(account: Account) -> dict[str, Any]:
    """Why documents were left out, as bars of documents, and how many further reasons there are."""
    most = max((reason.documents for reason in account.reasons), default=1)
    shown = account.reasons[:MOST_REASONS]
    return {
        "rows": [{"reason": one, "share": round(100 * one.documents / most, 2)} for one in shown],
        "others": len(account.reasons) - len(shown),
    }


def changes(account: Account) -> list[dict[str, Any]]:
    """What steps did to texts: how often, and some before and after."""
    rows = []
    for stage in account.stages:
        if stage.changed:
            examples = [
                {**one, "pieces": _pieces(one["before"], one["after"])}
                for one in account.changes.get(stage.name, [])
                if "after" in one
            ]
            rows.append({"stage": stage, "examples": examples})
    return rows


def _pieces(before: str, after: str) -> list[Piece]:
    """What changed; where personal data was, excerpts hold placeholders on both sides, and these are marked."""
    if before != after:
        return diff(before, after, CUT)
    parts = PLACEHOLDERS.split(after)
    return shortened([Piece(ADDED if place % 2 else SAME, part) for place, part in enumerate(parts)])


def groups(found: Mapping[str, Group], names: Mapping[str, Said]) -> list[dict[str, Any]]:
    """The groups with most text before cleaning, the rest as one."""
    ordered = sorted(found.items(), key=lambda one: -one[1].bytes_in)
    rows = [(names.get(key, Said(key, key)), group) for key, group in ordered[:MOST_GROUPS]]
    if rest := [group for _, group in ordered[MOST_GROUPS:]]:
        fields = ("documents_in", "bytes_in", "documents", "bytes")
        together = Group(*(sum(getattr(group, field) for group in rest) for field in fields))
        rows.append((Said(f"{len(rest)} others", f"其他 {len(rest)} 种"), together))
    most = max((group.bytes_in for _, group in rows), default=0) or 1
    return [
        {
            "name": name,
            "group": group,
            "before": round(100 * group.bytes_in / most, 2),
            "after": round(100 * group.bytes / most, 2),
        }
        for name, group in rows
    ]


def lengths(before: list[int], after: list[int]) -> dict[str, Any] | None:
    """Documents by their bytes, a bar for each power of two; None where there is no document."""
    used = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one or other]
    if not used:
        return None
    first, last = used[0], used[-1]
    count, most = last - first + 1, max(*before, *after)
    marks = [mark for mark in ticks(0, most, 5, whole=True) if mark <= most]
    width = SIDE / count

    def bars(values: list[int], inset: float) -> list[tuple[float, float, float, float]]:
        return [
            (
                round(place * width + inset * width, 1),
                round(SIDE * (1 - value / most), 1),
                round(width * (1 - 2 * inset), 1),
                round(SIDE * value / most, 1),
            )
            for place, value in enumerate(values[first : last + 1])
            if value
        ]

    every = max(1, -(-count // 8))
    return {
        "before": bars(before, 0.06),
        "after": bars(after, 0.2),
        "x": [(100 * place / count, _bytes(1 << max(0, first + place - 1))) for place in range(0, count + 1, every)],
        "y": [(100 * (1 - mark / most), read.whole(mark)) for mark in marks],
    }


def _bytes(size: int) -> str:
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


def sides(account: Account) -> list[dict[str, Any]]:
    """The sides of the split, where something is held out."""
    names = {
        "train": Said("training", "训练"),
        "validation": Said("validation", "验证"),
        "test": Said("test", "测试"),
    }
    found = account.totals.sides
    total = sum(side.bytes for side in found.values()) or 1
    return [
        {"key": key, "name": name, "side": found[key], "share": round(100 * found[key].bytes / total, 2)}
        for key, name in names.items()
        if key in found
    ]
