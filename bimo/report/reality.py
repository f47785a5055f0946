"""The plan against reality: what was expected of a run before its first step, and what came."""

from __future__ import annotations

from typing import NamedTuple

from bimo.report.facts import Facts, figure, size, whole
from bimo.report.words import Said, duration


class Expected(NamedTuple):
    """One thing that was planned; ``planned`` and ``actual`` are as shown, ``off`` is actual / planned - 1.

    Attributes:
        off: None where one of the two is not known, or reality is not complete yet.
    """

    name: Said
    planned: Said
    actual: Said
    off: float | None


def compare(facts: Facts) -> list[Expected]:
    """What was planned beside what came, a row a thing; what was not planned has no row."""
    step, steps = facts.number("plan.step_seconds"), facts.steps
    seconds = facts.training_seconds
    taken = seconds / steps if seconds is not None and steps else None
    rows = [
        _row(Said("Steps", "步数"), facts.planned_steps, steps, whole, complete=facts.finished),
        _row(
            Said("Milliseconds a step", "每步毫秒"),
            None if step is None else 1000 * step,
            None if taken is None else 1000 * taken,
            whole,
        ),
        _row(Said("Training time", "训练时间"), facts.planned_seconds, seconds, duration, complete=facts.finished),
    ]
    return [row for row in rows if row is not None] + predictions(facts)


def predictions(facts: Facts) -> list[Expected]:
    """What the plan foretold of the whole run, beside what came; empty where it foretold nothing."""
    rows = [
        _row(
            Said("Time, everything included", "总用时"),
            facts.number("plan.predicted.seconds"),
            facts.number("cost.wall_seconds"),
            duration,
            complete=facts.finished,
        ),
        _row(
            Said("Peak memory", "内存峰值"),
            facts.number("plan.predicted.peak_memory_bytes"),
            facts.number("cost.peak_memory_bytes"),
            size,
            complete=facts.finished,
        ),
        _bits(facts),
    ]
    return [row for row in rows if row is not None]


def _row(
    name: Said, planned: float | None, actual: float | None, shown: object, *, complete: bool = True
) -> Expected | None:
    if planned is None:
        return None
    assert callable(shown)
    off = actual / planned - 1 if planned and actual is not None and complete else None
    return Expected(name, _said(shown(planned)), _said(shown(actual)), off)


def _bits(facts: Facts) -> Expected | None:
    """Bits per byte of held-out text as predicted, with its interval, and as measured."""
    planned = facts.measured("plan.predicted.bits_per_byte")
    actual = facts.number("metrics.test_bits_per_byte.value")
    if planned is None:
        return None
    shown = figure(planned.value)
    en = zh = shown
    if planned.interval:
        low, high = (figure(end) for end in planned.interval)
        en, zh = f"{shown} ({low} to {high})", f"{shown}（{low} 至 {high}）"
    off = actual / planned.value - 1 if actual is not None and planned.value else None
    return Expected(
        Said("Bits per byte, held-out text", "留出文本的每字节比特数"), Said(en, zh), _said(figure(actual)), off
    )


def _said(shown: str | Said) -> Said:
    return shown if isinstance(shown, Said) else Said(shown, shown)
