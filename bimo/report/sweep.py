"""The page of a sweep: one HTML file with the trade-offs, what mattered, all learning curves and the best trial."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from rich.cells import cell_len

from bimo import files
from bimo.report import facts as read
from bimo.report.curves import SIDE, ticks
from bimo.report.page import created
from bimo.report.sweep_facts import CHOICES, FEW_TRIALS, Key, SweepFacts, TrialFacts, lower_front, read_sweep
from bimo.report.templates import load, rendered
from bimo.report.words import Said, clock

STATES = {
    "finished": Said("finished", "完成"),
    "pruned": Said("pruned", "剪枝"),
    "failed": Said("failed", "失败"),
    "diverged": Said("diverged", "发散"),
    "running": Said("not finished", "未完成"),
}
SETTLED = 0.25  # of a trial's budget, before which its bits per byte may lie above the frame


@dataclass(frozen=True)
class Scale:
    """One axis; with ``log``, factors count, not differences."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], *, log: bool = False, room: float = 0.08) -> Scale:
        """From the least to the most of some values, and a little more."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if log and low > 0:
            factor = (high / low) ** room if high > low else 1.5
            return cls(low / factor, high * factor, True)
        space = room * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low - space, high + space)

    def share(self, value: float) -> float:
        """Where ``value`` lies: 0 at the low end, 1 at the high end; what lies far outside is moved nearer."""
        low, high, own = (math.log(one) for one in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value,
        )  # fmt: skip
        return min(2.0, max(-1.0, (own - low) / (high - low)))

    def marks(self, most: int) -> list[float]:
        """Round values inside."""
        if not self.log:
            return ticks(self.low, self.high, most)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [factor * 10.0**power for power in powers for factor in factors]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= most:
                break
        return found


def write_sweep_page(folder: Path) -> None:
    """Write ``sweep.html`` into the folder of a sweep.

    Raises:
        RunError: it has no readable ``sweep.json``.
    """
    files.write_text(folder / "sweep.html", render(read_sweep(folder)))


def render(sweep: SweepFacts) -> str:
    """The page as HTML; everything that the record says is escaped."""
    bits = _bits(sweep)
    return rendered(
        template(),
        sweep=sweep,
        states=STATES,
        lead=lead(sweep),
        created=created(read.text(read.at(sweep.values, "created"))),
        gain=gain(sweep),
        sizes=sizes(sweep, bits) if bits else None,
        times=times(sweep) if bits else None,
        curves=curves(sweep),
        slices=[slice_of(key, sweep, bits) for key in sweep.keys] if bits else [],
        few=len(sweep.finished) < FEW_TRIALS,
        label=label,
        short=short,
    )


@functools.cache
def template() -> jinja2.Template:
    """The page's template."""
    return load("sweep.html.jinja", shown=shown)


def lead(sweep: SweepFacts) -> Said:
    """What was searched, in a sentence."""
    source, budget = (read.text(read.at(sweep.values, f"plan.{key}")) for key in ("source", "trial_budget"))
    found = (
        Said(f"{len(sweep.trials)} trials of {budget} each on {source}", f"在 {source} 上试验 {len(sweep.trials)} 次"),
        Said(f"{sweep.count('finished')} finished", f"{sweep.count('finished')} 次完成"),
        Said(f"{sweep.count('pruned')} pruned early", f"{sweep.count('pruned')} 次提前剪枝"),
        Said(f"{sweep.count('failed', 'diverged')} failed", f"{sweep.count('failed', 'diverged')} 次失败"),
    )
    chinese = f"{found[0].zh}，每次预算 {budget}：" + "，".join(one.zh for one in found[1:])
    return Said(f"{found[0].en}: " + ", ".join(one.en for one in found[1:]) + ".", f"{chinese}。")


def gain(sweep: SweepFacts) -> float | None:
    """By what share the best trial needs fewer bits than the first, which had the configuration's own values."""
    first = next((trial for trial in sweep.trials if trial.number == 0), None)
    if not sweep.start or sweep.best is None or first is None or first.value is None or sweep.best.value is None:
        return None
    changed = read.change(sweep.best.value, first.value)
    return None if changed is None else -changed


def short(key: str) -> str:
    """``width`` for ``model.width``; a data weight stays as it is."""
    return key if key.startswith("mix.") else key.rpartition(".")[2]


def shown(value: Any) -> str:
    """A value as YAML has it."""
    return "–" if value is None else read.text(value)


def label(value: float) -> str:
    """A round value of an axis: ``0.005``, ``20``, ``1.5M``."""
    return read.count(value).replace(".00", "").replace(".0", "") if abs(value) >= 10_000 else f"{value:.6g}"


def _bits(sweep: SweepFacts) -> Scale | None:
    """The axis of the finished trials' bits per byte; a few hopeless ones may lie on its upper end."""
    values = sorted(trial.value for trial in sweep.finished if trial.value is not None)
    if not values:
        return None
    middle = values[len(values) // 2]
    return Scale.around([value for value in values if value <= values[0] + 4 * (middle - values[0]) + 1e-9])


def _line(points: Sequence[tuple[float, float]], x: Scale, y: Scale, *, stepped: bool = False) -> str:
    parts: list[str] = []
    for place, (left, right) in enumerate(points):
        across, down = f"{SIDE * x.share(left):.1f}", f"{SIDE * (1 - y.share(right)):.1f}"
        parts.append(f"M{across} {down}h0" if not place else f"H{across}V{down}" if stepped else f"L{across} {down}")
    return "".join(parts) + (f"H{SIDE}" if stepped and parts else "")


def _chart(
    x: Scale, y: Scale, *, points: Any = (), lines: Any = (), across: int = 5, shown_x: Any = label
) -> dict[str, Any]:
    marks = y.marks(6)
    spacing = marks[1] - marks[0] if len(marks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(spacing) + 1e-9))
    return {
        "x": [(100 * x.share(value), shown_x(value)) for value in x.marks(across)],
        "y": [(100 * (1 - y.share(value)), f"{value:.{digits}f}") for value in marks],
        "points": list(points),
        "lines": list(lines),
        "ends": [],
    }


def _point(trial: TrialFacts, x: Scale, y: Scale, across: float, sweep: SweepFacts, front: bool) -> dict[str, Any]:
    best = sweep.best is not None and trial.number == sweep.best.number
    return {
        "left": round(100 * x.share(across), 2),
        "top": round(100 * max(0.0, 1 - y.share(trial.value or 0.0)), 2),  # a hopeless one lies on the upper end
        "trial": trial,
        "kind": "best" if best else "front" if front else "other",
        "first": trial.number == 0 and bool(sweep.start),
    }


def sizes(sweep: SweepFacts, y: Scale) -> dict[str, Any] | None:
    """Bits per byte against parameters."""
    known = [(trial, trial.size) for trial in sweep.finished if trial.size]
    if not known:
        return None
    x = Scale.around([size for _, size in known], log=True)
    front = sorted((trial.size or 0.0, trial.value or 0.0) for trial, _ in known if trial.front)
    points = [_point(trial, x, y, size, sweep, trial.front) for trial, size in reversed(known)]
    return _chart(x, y, points=points, lines=[("front", _line(front, x, y, stepped=True))])


def times(sweep: SweepFacts) -> dict[str, Any] | None:
    """Bits per byte against seconds of training: all validations on the way, and the least at each moment."""
    ways = {trial.number: _timed(trial) for trial in sweep.trials if trial.seconds and trial.reports}
    points = [point for way in ways.values() for point in way]
    settled = [value for trial in sweep.trials for share, value in trial.reports if share >= SETTLED]
    if not points or not settled:
        return None
    ends = [trial.value for trial in sweep.finished if trial.value is not None]
    x, y = Scale(0.0, 1.04 * max(seconds for seconds, _ in points)), _clipped([*settled, *ends])
    ended = [trial for trial in sweep.finished if trial.seconds]
    lines = [("pale", _line(way, x, y)) for way in ways.values()]
    lines.append(("front", _line(lower_front(points), x, y, stepped=True)))
    dots = [_point(trial, x, y, trial.seconds or 0.0, sweep, False) for trial in reversed(ended)]
    return _chart(x, y, points=dots, lines=lines, shown_x=lambda value: clock(value) or "0:00")


def _timed(trial: TrialFacts) -> list[tuple[float, float]]:
    """Its validations by seconds of training: a trial learns at an even pace."""
    whole = (trial.seconds or 0.0) / max(share for share, _ in trial.reports)
    return [(share * whole, value) for share, value in trial.reports]


def _clipped(values: Sequence[float]) -> Scale:
    """An axis that leaves out the worst tenth."""
    ordered = sorted(values)
    return Scale.around(ordered[: max(2, math.ceil(0.9 * len(ordered)))], room=0.06)


def curves(sweep: SweepFacts) -> dict[str, Any] | None:
    """The validations of all trials, by share of their budgets; the best one last, so that it lies on top."""
    drawn = [trial for trial in sweep.trials if trial.reports]
    settled = [value for trial in drawn for share, value in trial.reports if share >= SETTLED]
    if not settled:
        return None
    x, y = Scale(0.0, 1.0), _clipped(settled)
    best = sweep.best.number if sweep.best else -1
    order: Callable[[TrialFacts], tuple[bool, bool]] = lambda trial: (trial.number == best, trial.state == "finished")  # noqa: E731
    kinds = {
        trial.number: "best" if trial.number == best else "done" if trial.state == "finished" else "pruned"
        for trial in drawn
    }
    lines = [(kinds[trial.number], _line(trial.reports, x, y)) for trial in sorted(drawn, key=order)]
    chart = _chart(x, y, lines=lines, across=6, shown_x=lambda value: f"{value:.0%}")
    ended = [trial for trial in drawn if trial.state == "pruned"]
    chart["ends"] = [
        {"left": round(100 * share, 2), "top": round(100 * (1 - y.share(value)), 2), "trial": trial}
        for trial in ended
        for share, value in trial.reports[-1:]
        if y.share(value) <= 1
    ]
    return chart


def slice_of(key: Key, sweep: SweepFacts, y: Scale | None) -> dict[str, Any]:
    """The finished trials by the value of one key."""
    assert y is not None
    known = [(trial, trial.parameters.get(key.name)) for trial in reversed(sweep.finished)]
    if key.kind == CHOICES:
        choices = [choice for choice, _, _ in sorted(key.means, key=lambda mean: _order(mean[0]))]
        x = Scale(-0.6, len(choices) - 0.4)
        placed = [(trial, float(choices.index(shown_choice(value)))) for trial, value in known]
        chart = _chart(x, y)
        chart["x"] = [(100 * x.share(place), choice) for place, choice in enumerate(choices)]
        means = {choice: mean for choice, mean, _ in key.means}
        ends = [(place - 0.3, place + 0.3, means[choice]) for place, choice in enumerate(choices)]
        chart["lines"] = [("mean", _line([(low, mean), (high, mean)], x, y)) for low, high, mean in ends]
    else:
        placed = [(trial, float(found)) for trial, value in known if (found := read.number(value)) is not None]
        x = Scale.around([value for _, value in placed], log=key.log)
        chart = _chart(x, y, across=4)
    chart["points"] = [_point(trial, x, y, value, sweep, False) for trial, value in placed]
    return {"key": key, "chart": chart, "said": said_of(key)}


def shown_choice(value: Any) -> str:
    """A choice as the record of a key names it."""
    return read.text(value) or "null"


def _order(choice: str) -> tuple[int, float, str]:
    try:
        return (0, float(choice), "")
    except ValueError:
        return (1, 0.0, choice)


def said_of(key: Key) -> Said:
    """What the finished trials say of a key."""
    if key.strength is None:
        return Said("too few trials to say", "试验太少，无法判断")
    if key.kind == CHOICES:
        (best, low, _), (worst, high, _) = key.means[0], key.means[-1]
        return Said(
            f"on average {best} needs {high - low:.3f} bits per byte less than {worst}",
            f"平均而言，{best} 比 {worst} 每字节少用 {high - low:.3f} 比特",
        )
    if key.strength < 0.2:
        return Said("no trend over this range", "在此范围内没有趋势")
    return (
        Said("smaller values did better", "较小的值更好")
        if key.rising
        else Said("larger values did better", "较大的值更好")
    )


def markdown_table(sweep: SweepFacts) -> str:
    """The finished trials, best first, then the others, as a Markdown table."""
    names = list(sweep.trials[0].parameters) if sweep.trials else []
    header = ["trial", *map(short, names), "bits/byte", "parameters", "seconds", ""]
    others = [trial for trial in sweep.trials if trial not in sweep.finished]
    rows = [
        [
            str(trial.number),
            *(shown(trial.parameters.get(name)) for name in names),
            read.figure(trial.value),
            read.count(trial.size),
            read.figure(trial.seconds, 0),
            _mark(trial, sweep),
        ]
        for trial in (*sweep.finished, *others)
    ]
    widths = [max(cell_len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    lines = [
        " | ".join(" " * (width - cell_len(cell)) + cell for cell, width in zip(row, widths, strict=True))
        for row in [header, *rows]
    ]
    rule = "|".join("-" * (width + 1) + ":" for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def _mark(trial: TrialFacts, sweep: SweepFacts) -> str:
    if sweep.best is not None and trial.number == sweep.best.number:
        return "best"
    return "front" if trial.front else trial.state if trial.state != "finished" else ""


def summary(sweep: SweepFacts, folder: Path) -> str:
    """What the command prints at the end."""
    lines = [markdown_table(sweep), "", "front: no other trial is as good with as few parameters", ""]
    for key in sweep.keys:
        strength = "–" if key.strength is None else f"{key.strength:.2f}"
        lines.append(f"{key.name:<32} strength {strength}  {said_of(key).en}")
    if len(sweep.finished) < FEW_TRIALS:
        lines.append(f"Only {len(sweep.finished)} trials finished: take what each key mattered as a hint.")
    if sweep.best is not None and sweep.best.value is not None:
        lines += ["", f"best: trial {sweep.best.number}, {sweep.best.value:.3f} bits per byte of validation text"]
    if sweep.test is not None:
        interval = sweep.test.interval
        around = "" if interval is None else f" (95%: {interval[0]:.3f} to {interval[1]:.3f})"
        lines.append(f"test text, looked at once: {sweep.test.value:.3f}{around}")
    quoted = shlex.quote(str(folder))
    return "\n".join(
        [*lines, "", f"report: {folder / 'sweep.html'}", f"bimo train {quoted}/best.yaml --budget 1h --out runs/best"]
    )


def print_summary(folder: Path) -> None:
    """Print the table of a sweep, what mattered and what to do next."""
    print(summary(read_sweep(folder), folder))
