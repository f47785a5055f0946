"""Curves of a run as SVG paths in a square of 1000 by 1000, stretched by the page; lengths of axes are the page's."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bimo.report.facts import bits_of, number, validation_bits_of

SIDE = 1000  # of the square that all coordinates lie in
MOST_POINTS = 600  # of a curve: more cannot be seen
SMALLEST = 1e-300  # distance of two marks: below, numbers lose their digits
COLUMNS = {
    "seconds": "seconds",
    "tokens": "tokens",
    "rate": "learning_rate_multiplier",
    "norm": "gradient_norm",
}

Value = float | None
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its place in percent from the left or the top, and the value that belongs there."""

    place: float
    value: float


@dataclass(frozen=True)
class Axis:
    """A linear axis."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where ``value`` lies: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        lines: path data by name of the line.
        dots: path data of single points.
        across: height in percent from the top, by name of a horizontal line.
        x, y: the marks of the two axes.
        digits: decimals that tell the marks of the y axis apart.
    """

    lines: Mapping[str, str]
    dots: str
    across: Mapping[str, float]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    digits: int


@dataclass(frozen=True)
class Curves:
    """All charts of a run, and the numbers that a reader can point at.

    Attributes:
        points: by column, thinned to at most ``MOST_POINTS``; None where a step has no such value.
        times: seconds by step, at the marks of the x axes.
    """

    bits: Chart
    rate: Chart
    norm: Chart
    points: Mapping[str, Sequence[Value]]
    times: Mapping[float, Value]


def draw(records: Sequence[Mapping[str, Any]], *, held_out: Value = None, clip: Value = None) -> Curves | None:
    """Draw the records of ``metrics.jsonl``; None where there is nothing to draw.

    Args:
        records: in the order of their steps.
        held_out: bits per byte of the test text, a line across the first chart.
        clip: the norm above which gradients are clipped, a line across the last one.
    """
    steps = [float(record["step"]) for record in records]
    if not steps or steps[-1] <= 0:
        return None
    columns = {name: [number(record.get(key)) for record in records] for name, key in COLUMNS.items()}
    columns |= {"train": [*map(bits_of, records)], "validation": [*map(validation_bits_of, records)]}
    x = Axis(0.0, steps[-1])
    marks, few = (
        tuple(Tick(100 * x.share(value), value) for value in ticks(0.0, steps[-1], most, whole=True)) for most in (6, 4)
    )
    points = thin({"step": list(steps), **columns})
    thinned = [step for step in points["step"] if step is not None]
    smooth = smoothed(columns["train"])
    points["smooth"] = [smooth[_nearest(steps, step)] for step in thinned]

    measured = [(step, value) for step, value in zip(steps, columns["validation"], strict=True) if value is not None]
    measured = measured[:: math.ceil(len(measured) / MOST_POINTS) or 1]
    y = _bits_axis(smooth, [value for _, value in measured], held_out)
    bits = Chart(
        lines={
            "train": path(thinned, points["train"], x, y),
            "smooth": path(thinned, points["smooth"], x, y),
            "validation": path([step for step, _ in measured], [value for _, value in measured], x, y),
        },
        dots="".join(_dot(step, value, x, y) for step, value in measured if y.low <= value <= y.high),
        across={} if held_out is None else {"held-out": 100 * (1 - y.share(held_out))},
        **_axes(marks, y),
    )
    rate_axis = Axis(0.0, _top(points["rate"], 1.0))
    norm_axis = Axis(0.0, max(_top(points["norm"], 0.0), 1.1 * (clip or 0.0)) or 1.0)
    rate = Chart({"rate": path(thinned, points["rate"], x, rate_axis)}, "", {}, **_axes(few, rate_axis))
    across = {} if clip is None or clip <= 0 else {"clip": 100 * (1 - norm_axis.share(clip))}
    norm = Chart({"norm": path(thinned, points["norm"], x, norm_axis)}, "", across, **_axes(few, norm_axis))
    times = {mark.value: columns["seconds"][_nearest(steps, mark.value)] for mark in (*marks, *few) if mark.value}
    return Curves(bits, rate, norm, {name: _rounded(values) for name, values in points.items()}, times)


def thin(columns: Mapping[str, Sequence[Value]]) -> dict[str, list[Value]]:
    """At most ``MOST_POINTS`` rows: means of neighbouring ones, but the last one's step, seconds and tokens."""
    rows = len(columns["step"])
    width = math.ceil(rows / MOST_POINTS) or 1
    pick: dict[str, Callable[[list[float]], float]] = dict.fromkeys(
        ("step", "seconds", "tokens", "validation"), lambda values: values[-1]
    )
    return {
        name: [
            _of_known(values[begin : begin + width], pick.get(name, lambda known: sum(known) / len(known)))
            for begin in range(0, rows, width)
        ]
        for name, values in columns.items()
    }


def _of_known(values: Sequence[Value], what: Callable[[list[float]], float]) -> Value:
    known = [value for value in values if value is not None]
    return what(known) if known else None


def smoothed(values: Sequence[Value]) -> list[Value]:
    """Centred means over a twenty-fifth of the values, fewer where they begin: there the curve is steep."""
    total, known = [0.0], [0]
    for value in values:
        total.append(total[-1] + (value or 0.0))
        known.append(known[-1] + (value is not None))
    reach = len(values) // 50
    result: list[Value] = []
    for place in range(len(values)):
        side = min(reach, place)
        begin, end = place - side, min(len(values), place + side + 1)
        seen = known[end] - known[begin]
        result.append((total[end] - total[begin]) / seen if seen else None)
    return result


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """At most ``most`` round values from ``low`` to ``high``, evenly spaced by 1, 2 or 5 times a power of ten."""
    raw = max((high - low) / max(1, most - 1), SMALLEST)
    power = 10.0 ** math.floor(math.log10(raw))
    for spacing in (max(1.0, factor * power) if whole else factor * power for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / spacing - 1e-9), math.floor(high / spacing + 1e-9)
        if last - first < most:
            break
    return [index * spacing for index in range(first, last + 1)]


def path(steps: Sequence[float], values: Sequence[Value], x: Axis, y: Axis) -> str:
    """Path data of a line through the points; it is broken where a value is missing."""
    parts, drawing = [], False
    for step, value in zip(steps, values, strict=True):
        if value is not None:
            parts.append(f"{'L' if drawing else 'M'}{_place(step, value, x, y)}{'' if drawing else 'h0'}")
        drawing = value is not None
    return "".join(parts)


def _dot(step: float, value: float, x: Axis, y: Axis) -> str:
    """A line without length: its round ends make a dot that stays round however the chart is stretched."""
    return f"M{_place(step, value, x, y)}h0"


def _place(step: float, value: float, x: Axis, y: Axis) -> str:
    height = min(2.0, max(-1.0, y.share(value)))  # what lies outside is cut off at the frame
    return f"{SIDE * x.share(step):.1f} {SIDE * (1 - height):.1f}"


def _bits_axis(smooth: Sequence[Value], measured: Sequence[float], held_out: Value) -> Axis:
    """From the best to the worst, but for the very first steps, which would press all others together."""
    settled = [value for value in smooth[len(smooth) // 25 :] if value is not None]
    shown = [*settled, *measured, *([] if held_out is None else [held_out])] or [0.0, 1.0]
    low, high = min(shown), max(shown)
    room = max(0.08 * (high - low), 1e-3 * abs(high)) or 1.0
    return Axis(max(0.0, low - room) if low >= 0 else low - room, high + room)


def _top(values: Sequence[Value], least: float) -> float:
    """The upper end of an axis from 0: a few spikes may pass it."""
    known = sorted(value for value in values if value is not None)
    return max(least, known[int(0.99 * (len(known) - 1))] if known else 0.0) * 1.1


def _axes(marks: tuple[Tick, ...], y: Axis) -> dict[str, Any]:
    values = ticks(y.low, y.high, 6)
    spacing = values[1] - values[0] if len(values) > 1 else 1.0
    places = tuple(Tick(100 * (1 - y.share(value)), value) for value in values)
    return {"x": marks, "y": places, "digits": max(0, -math.floor(math.log10(spacing) + 1e-9))}


def _nearest(steps: Sequence[float], step: float) -> int:
    after = min(bisect.bisect_left(steps, step), len(steps) - 1)
    return after - 1 if after and step - steps[after - 1] < steps[after] - step else after


def _rounded(values: Sequence[Value]) -> list[Value]:
    return [None if value is None else float(f"{value:.7g}") if value % 1 else value for value in values]
