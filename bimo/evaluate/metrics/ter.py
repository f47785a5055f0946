"""Translation edit rate: edits that turn a translation into the reference, for each word of the reference.

Snover et al. 2006, "A study of translation edit rate": words are put in, taken out and replaced, and runs of words are
moved. Which moves are tried, in which order and how far, is as in tercom, so that the value is sacrebleu's with its
default settings: words are what spaces separate, case does not count. ``ter_zh`` takes the tokens of ``bleu_zh``.

Shapes: H words of the translation, R of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from bimo.evaluate.metric import Metric, Sums, accepted, ratio
from bimo.evaluate.metrics.bleu import tokens_zh

LONGEST_MOVED, FARTHEST_MOVED, MOST_MOVES_TRIED, BEAM = 10, 50, 1_000, 25
FAR = 1 << 40  # the cost of what lies outside the beam

Edit = Literal["same", "replace", "take out", "put in"]


class _Row(NamedTuple):
    """The costs of turning so many words of the translation into 0 to R words of the reference, and the last edits."""

    costs: list[int]
    edits: list[Edit]


def edits_between(words: Sequence[str], reference: Sequence[str]) -> int:
    """The number of edits, moves included."""
    words, moves, tried = list(words), 0, 0
    if not reference:
        return len(words)
    while True:
        rows = _table(words, reference, [])
        moved, tried = _best_move(words, reference, rows, tried)
        if moved is None or tried >= MOST_MOVES_TRIED:
            return moves + rows[-1].costs[-1]
        words, moves = moved, moves + 1


def _table(words: Sequence[str], reference: Sequence[str], known: list[_Row]) -> list[_Row]:
    """The rows for 0 to H words; ``known`` are the first of them. Only what lies near the diagonal is computed."""
    size = len(reference)
    steepness = size / len(words) if words else 1.0
    beam = math.ceil(steepness / 2 + BEAM) if steepness / 2 > BEAM else BEAM
    rows = known or [_Row(list(range(size + 1)), ["put in"] * (size + 1))]
    for count in range(len(rows), len(words) + 1):
        diagonal = math.floor(count * steepness)
        last = size if count == len(words) else min(size, diagonal + beam - 1)
        above = rows[-1].costs
        row = _Row([FAR] * (size + 1), ["take out"] * (size + 1))
        for place in range(max(0, diagonal - beam), last + 1):
            cost, edit = above[place] + 1, "take out"
            if place:
                same = words[count - 1] == reference[place - 1]
                straight = above[place - 1] + (not same)
                if straight <= cost:
                    cost, edit = straight, "same" if same else "replace"
                if row.costs[place - 1] + 1 < cost:
                    cost, edit = row.costs[place - 1] + 1, "put in"
            row.costs[place], row.edits[place] = cost, edit  # type: ignore[call-overload]
        rows.append(row)
    return rows


class _Alignment(NamedTuple):
    """Where each word of the reference stands in the translation, and which words of both are wrong."""

    places: dict[int, int]
    wrong: list[bool]  # (H,)
    missed: list[bool]  # (R,)


def _align(rows: list[_Row]) -> _Alignment:
    path: list[Edit] = []
    at, place = len(rows) - 1, len(rows[0].costs) - 1
    while at or place:
        edit = rows[at].edits[place]
        path.append(edit)
        at -= edit != "put in"
        place -= edit != "take out"
    result = _Alignment({}, [], [])
    for edit in reversed(path):
        if edit != "put in":
            result.wrong.append(edit != "same")
        if edit != "take out":
            result.places[len(result.missed)] = len(result.wrong) - 1
            result.missed.append(edit != "same")
    return result


def _best_move(
    words: list[str], reference: Sequence[str], rows: list[_Row], tried: int
) -> tuple[list[str] | None, int]:
    """The words after the move that saves the most, None where none saves anything; and how many were tried in all."""
    aligned, before = _align(rows), rows[-1].costs[-1]
    best: tuple[int, int, int, int, list[str]] | None = None
    for start, target, length in _equal_runs(words, reference):
        if not any(aligned.wrong[start : start + length]) or not any(aligned.missed[target : target + length]):
            continue
        if start <= aligned.places[target] < start + length:
            continue
        previous = -1
        for offset in range(-1, length):
            to = 0 if target + offset == -1 else aligned.places[target + offset] + 1
            if to == previous:
                continue
            previous = to
            moved = _move(words, start, length, to)
            cost = _table(moved, reference, rows[: min(start, to) + 1])[-1].costs[-1]
            candidate = (before - cost, length, -start, -to, moved)
            best = candidate if best is None else max(best, candidate)
            tried += 1
        if tried >= MOST_MOVES_TRIED:
            break
    return (best[-1] if best is not None and best[0] > 0 else None), tried


def _equal_runs(words: Sequence[str], reference: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Where runs of the same words begin in both, and each length they have up to the longest."""
    for start in range(len(words)):
        for target in range(max(0, start - FARTHEST_MOVED), min(len(reference), start + FARTHEST_MOVED + 1)):
            most = min(LONGEST_MOVED, len(words) - start, len(reference) - target)
            for length in range(1, most + 1):
                if words[start + length - 1] != reference[target + length - 1]:
                    break
                yield start, target, length


def _move(words: list[str], start: int, length: int, to: int) -> list[str]:
    run, end = words[start : start + length], start + length
    if to < start:
        return words[:to] + run + words[to:start] + words[end:]
    if to > end:
        return words[:start] + words[end:to] + run + words[to:]
    return words[:start] + words[end : length + to] + run + words[length + to :]


def _counter(tokenize: Callable[[str], list[str]]) -> Callable[[Sequence[str], Sequence[str]], Sums]:
    def contributions(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Sums:
        """Edits to the nearest reference, and the mean length of the references (N, 2)."""
        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            wanted = [tokenize(one.lower()) for one in accepted(reference)]
            written = tokenize(prediction.lower())
            length = sum(map(len, wanted)) / len(wanted)
            rows.append((min(edits_between(written, one) for one in wanted), length))
        return np.array(rows, np.float64)

    return contributions


def _ter(sums: Sums) -> Sums:
    return np.where(sums[..., 1] > 0, 100 * ratio(sums), 100.0 * (sums[..., 0] > 0))


SIGNATURE = "nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:as sacrebleu 2.6.0"
METRICS = (
    Metric("ter", "text", _counter(str.split), _ter, best="low", scale="0, above 100 possible", signature=SIGNATURE),
    Metric("ter_zh", "text", _counter(tokens_zh), _ter, best="low", scale="0, above 100 possible"),
)
