"""Figure and tables of docs/transfer.md, from the finished cells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.training.table import replace_between
from bimo import files
from bimo.report.curves import Axis, ticks

Cell: TypeAlias = Mapping[str, Any]

NAMES = {
    "tfidf": "TF-IDF + logistic regression",
    "scratch": "from scratch",
    "bimo": "pretrained by bimo",
    "minilm": "MiniLM",
    "smollm2": "SmolLM2-135M, LoRA",
}
SETS = {"en": "sarcastic headlines", "zh": "评论 (Chinese reviews)"}
SIZES = (100, 1000, "all")
TUNINGS = {"full": "all weights", "lora": "LoRA"}
MODELS = {"bimo": "run of bimo, 3.3M", "smollm2": "SmolLM2-135M"}
MISSING = "not measured yet"

WIDTH, HEIGHT = 1200, 500
LEFT, TOP, TALL, PANEL, SECOND, ACROSS = 84, 140, 290, 480, 800, 330  # of the two panels
COLOURS = {"tfidf": "#8b8474", "scratch": "#a83a26", "bimo": "#3f618f", "minilm": "#4b7f52", "smollm2": "#8a5a9e"}
STYLE = """
    text { fill: #565249; font-size: 14px }
    .title { font-size: 24px; font-weight: 650; fill: #23262e }
    .name { font-size: 18px; font-weight: 650; fill: #23262e }
    .grid { stroke: #e9e2d3; stroke-width: 1 }
    .axis { stroke: #8b8474; stroke-width: 1.2 }
    .old { stroke: #a83a26; fill: #a83a26 } .new { stroke: #3f618f; fill: #3f618f }
    .red { fill: #a83a26; font-weight: 600 } .blue { fill: #3f618f; font-weight: 600 }
    .mid { text-anchor: middle } .end { text-anchor: end }"""


def write_page(docs: Path, cells: Sequence[Cell]) -> None:
    """Put the figure and the tables of the cells that there are in place."""
    labels = [cell for cell in cells if "accuracy" in cell]
    forgets = [cell for cell in cells if "old" in cell]
    files.write_text(docs / "transfer.svg", figure(labels, forgets))
    tables = {"few-labels": label_tables(labels), "cost": cost_table(labels), "forgetting": forgetting_table(forgets)}
    for name, content in tables.items():
        replace_between(docs / "transfer.md", name, f"\n{content}\n")


def chosen(cells: Sequence[Cell], **what: Any) -> list[Cell]:
    """The cells of which all this is true: one a seed."""
    return [cell for cell in cells if all(cell.get(key) == value for key, value in what.items())]


def accuracy(cells: Sequence[Cell]) -> tuple[float, float, float]:
    """Mean over the seeds, and the interval: of one seed that of its test rows, else the lowest and highest seed."""
    values = [cell["accuracy"]["value"] for cell in cells]
    if len(cells) == 1:
        return values[0], cells[0]["accuracy"]["low"], cells[0]["accuracy"]["high"]
    return statistics.fmean(values), min(values), max(values)


def label_tables(cells: Sequence[Cell]) -> str:
    """Test accuracy by model and number of labels, a table for each language."""
    parts = []
    for language, title in SETS.items():
        here = chosen(cells, language=language)
        if not here:
            parts.append(f"**{title}**: {MISSING}.\n")
            continue
        seeds = len({cell["seed"] for cell in here})
        rows = f"{here[0]['test_rows']:,} test rows, {seeds} {'seed' if seeds == 1 else 'seeds'}"
        lines = [f"**{title}**, {rows}\n", "| model | 100 labels | 1,000 labels | all labels |", "|---|---|---|---|"]
        for model in NAMES:
            if language == "en" or model not in ("minilm", "smollm2"):
                shown = [_shown(chosen(here, model=model, size=size)) for size in SIZES]
                lines.append(f"| {NAMES[model]} | {' | '.join(shown)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _shown(cells: Sequence[Cell]) -> str:
    if not cells:
        return MISSING
    value, low, high = accuracy(cells)
    told = f", of {cells[0]['labels']:,}" if cells[0]["size"] == "all" else ""
    return f"{value:.3f} ({low:.3f} to {high:.3f}{told})"


def cost_table(cells: Sequence[Cell]) -> str:
    """What tuning took, and pretraining apart."""
    lines = [
        "| model | parameters | 100 labels | 1,000 labels | all labels | peak memory | pretraining |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in NAMES:
        mine = chosen(cells, language="en", model=model)
        if not mine or model == "tfidf":
            continue
        seconds = [_seconds(chosen(mine, size=size)) for size in SIZES]
        parent = mine[0]["parent"]
        before = {"minilm": "by others", "smollm2": "by others", "scratch": "none"}.get(model)
        before = before or f"{parent['seconds']:,} s, {parent['tokens'] / 1e6:.1f}M tokens"
        size, memory = f"{mine[0]['parameters'] / 1e6:.1f}M", f"{max(cell['memory'] for cell in mine) / 1e9:.1f} GB"
        lines.append(f"| {' | '.join([NAMES[model], size, *seconds, memory, before])} |")
    return "\n".join(lines) + "\n"


def _seconds(cells: Sequence[Cell]) -> str:
    return f"{statistics.fmean(cell['seconds'] for cell in cells):,.0f} s" if cells else MISSING


def forgetting_table(cells: Sequence[Cell]) -> str:
    """Bits per byte of the text of before and of the new answers, before tuning and after."""
    lines = [
        "| model | tuned on | what learns | old text before | old text after | forgotten | new answers before | "
        "new answers after | processor time | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(cells, key=lambda one: (one["model"], one["rows"], one["way"], one["seed"])):
        old, new = cell["old"], cell["new"]
        row = [
            *(MODELS[cell["model"]], f"{cell['rows']}, {cell['budget']}", TUNINGS[cell["way"]]),
            *(_bits(old["before"]), _bits(old["after"])),
            f"**{old['after']['value'] - old['before']['value']:+.3f}**",
            *(f"{new[when]['value']:.3f}" for when in ("before", "after")),
            *(f"{cell['seconds']:,.0f} s", f"{cell['memory'] / 1e9:.1f} GB"),
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _bits(one: Mapping[str, Any]) -> str:
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def figure(labels: Sequence[Cell], forgets: Sequence[Cell]) -> str:
    """Accuracy by labels on the left, what is forgotten and learned on the right."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d"',
        "     font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif\">",
        '  <title id="t">What pretraining is worth, and what tuning forgets</title>',
        '  <desc id="d">Left: accuracy on held-out headlines by the number of labels, for each model. Right: how far '
        "bits per byte of old text rise and of new answers fall. The numbers are in the tables of the page.</desc>",
        f"  <style>{STYLE}\n  </style>",
        f'  <rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="22" fill="#fbf8f1" stroke="#e6decd" '
        'stroke-width="2"/>',
        f'  <text class="title" x="{LEFT}" y="52">What pretraining is worth, and what tuning forgets</text>',
        *_accuracies(chosen(labels, language="en")),
        *_changes(forgets),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _accuracies(cells: Sequence[Cell]) -> list[str]:
    """Lines of accuracy by labels; a bar is the interval."""
    y, places = Axis(0.45, 1.0), dict(zip(SIZES, (0.1, 0.45, 0.8), strict=True))
    parts = [
        f'  <text class="name" x="{LEFT}" y="96">accuracy on new headlines</text>',
        f'  <text x="{LEFT}" y="118">by labels learned from; bars are 95% intervals</text>',
    ]
    for value in ticks(y.low, y.high, 6):
        height = TOP + TALL * (1 - y.share(value))
        parts.append(f'  <path class="grid" d="M{LEFT} {height:.1f}h{PANEL}"/>')
        parts.append(f'  <text class="end" x="{LEFT - 12}" y="{height + 5:.1f}">{value:.1f}</text>')
    for size, place in places.items():
        told = f"{size:,}" if isinstance(size, int) else size
        parts.append(f'  <text class="mid" x="{LEFT + PANEL * place:.0f}" y="{TOP + TALL + 24}">{told}</text>')
    parts.append(f'  <path class="axis" d="M{LEFT} {TOP + TALL}h{PANEL}"/>')
    ends: list[tuple[float, float, str]] = []  # height, where the line ends, model
    for number, (model, colour) in enumerate(COLOURS.items()):
        points = []
        for size, place in places.items():
            if found := chosen(cells, model=model, size=size):
                value, low, high = (TOP + TALL * (1 - y.share(one)) for one in accuracy(found))
                across = LEFT + PANEL * place + 7 * (number - 2)
                points.append(f"{across:.1f},{value:.1f}")
                bar = f"M{across:.1f} {low:.1f}V{high:.1f}"
                parts.append(f'  <path d="{bar}" stroke="{colour}" stroke-width="1.6" opacity=".45"/>')
                parts.append(f'  <circle cx="{across:.1f}" cy="{value:.1f}" r="4.5" fill="{colour}"/>')
                last = (value, across, model)
        if points:
            dashed = ' stroke-dasharray="5 5"' if model == "tfidf" else ""
            line = f'fill="none" stroke="{colour}" stroke-width="2.4"{dashed}'
            parts.append(f'  <polyline points="{" ".join(points)}" {line}/>')
            ends.append(last)
    lowest = 0.0
    for height, across, model in sorted(ends):
        lowest = max(height + 5, lowest + 18)
        name = NAMES[model].partition(" +")[0].partition(",")[0]
        parts.append(f'  <text x="{across + 14:.1f}" y="{lowest:.1f}" style="fill:{COLOURS[model]}">{name}</text>')
    return parts


def _changes(cells: Sequence[Cell]) -> list[str]:
    """Arrows to the right for what is forgotten, to the left for what is learned."""
    parts = [
        f'  <text class="name" x="{SECOND - 110}" y="96">bits per byte, after tuning minus before</text>',
        f'  <text x="{SECOND - 110}" y="118"><tspan class="red">text of before</tspan>: forgotten; '
        '<tspan class="blue">new answers</tspan>: learned</text>',
    ]
    cells = sorted((one for one in cells if one["seed"] == 0), key=lambda one: (one["model"], one["rows"], one["way"]))
    if not cells:
        return parts
    changes = {kind: [one[kind]["after"]["value"] - one[kind]["before"]["value"] for one in cells] for kind in
               ("old", "new")}  # fmt: skip
    both = [0.0, *changes["old"], *changes["new"]]
    x = Axis(min(both) - 0.05, max(both) + 0.1)
    for value in ticks(x.low, x.high, 5):
        across = SECOND + ACROSS * x.share(value)
        parts.append(f'  <path class="{"grid" if value else "axis"}" d="M{across:.1f} {TOP}v{TALL}"/>')
        parts.append(f'  <text class="mid" x="{across:.1f}" y="{TOP + TALL + 24}">{value:+.1f}</text>')
    for number, cell in enumerate(cells):
        middle = TOP + TALL * (number + 0.5) / len(cells)
        name = MODELS[cell["model"]].partition(",")[0]
        parts.append(f'  <text class="end" x="{SECOND - 14}" y="{middle - 2:.1f}">{name}, {cell["way"]}</text>')
        parts.append(f'  <text class="end" x="{SECOND - 14}" y="{middle + 15:.1f}">{cell["rows"]}</text>')
        for kind, height in (("old", middle - 6), ("new", middle + 7)):
            begin, end = (SECOND + ACROSS * x.share(value) for value in (0.0, changes[kind][number]))
            parts.append(f'  <path class="{kind}" d="M{begin:.1f} {height:.1f}H{end:.1f}" stroke-width="8"/>')
    return parts
