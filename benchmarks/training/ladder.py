"""The smallest budget of a ladder with which bimo reaches a loss: which one to measure next, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def bracket(ladder: Sequence[float], known: Mapping[float, float | None], target: float) -> tuple[int, int | None]:
    """(highest rung known to fall short below the answer, lowest rung known to reach); -1 and None where unknown.

    Args:
        known: budget -> bits per byte of the finished runs; None = too short to train anything.
    """
    reached = [i for i, rung in enumerate(ladder) if (value := known.get(rung)) is not None and value <= target]
    high = min(reached, default=None)
    short = [i for i, rung in enumerate(ladder) if rung in known and (high is None or i < high)]
    return max(short, default=-1), high


def next_rung(
    ladder: Sequence[float], known: Mapping[float, float | None], target: float, start: float
) -> float | None:
    """The budget to measure next, or None when the smallest that reaches the target is known, or none does.

    Args:
        start: where to begin when nothing is known: the nearest rung is taken.
    """
    low, high = bracket(ladder, known, target)
    if high is None:
        if low == -1:
            return min(ladder, key=lambda rung: abs(rung - start))
        return ladder[min(low + 2, len(ladder) - 1)] if low < len(ladder) - 1 else None
    if high - low <= 1:
        return None
    return ladder[max(high - 2, 0)] if low == -1 else ladder[(low + high) // 2]


def answer(ladder: Sequence[float], known: Mapping[float, float | None], target: float) -> tuple[float | None, bool]:
    """(smallest known budget that reaches the target, whether every shorter rung next to it is known to fall short)."""
    low, high = bracket(ladder, known, target)
    return (None, False) if high is None else (ladder[high], high - low == 1)
