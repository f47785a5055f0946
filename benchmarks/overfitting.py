"""One small text, three models: overfitted, regularised, transferred; figure and tables of docs/overfitting.md.

    python benchmarks/overfitting.py                # the cells that are missing, then the page
    python benchmarks/overfitting.py transferred    # only this cell, and what it needs
    python benchmarks/overfitting.py --page         # only the page

The small text is one play, scene by scene. The transferred model first learns from all other plays and poems. A cell
is kept in benchmarks/results/; delete its file to train it again. A few minutes of processor time in all.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bimo
from bimo import files
from bimo.evaluate.intervals import bits_per_byte
from bimo.evaluate.likelihood import score_documents
from bimo.models import load_model
from bimo.report.curves import SIDE, Axis, path, smoothed, ticks
from bimo.run import Run
from bimo.text.corpora import fetch
from bimo.text.source import open_source
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.checkpoint import load_checkpoint
from bimo.train.pretrain import train

CORPUS, PLAY = "shakespeare", "hamlet"
SCENE = re.compile(r"^(?=Scene [IVX]+\.)", re.MULTILINE)
CELLS = ("overfitted", "regularised", "transferred")
BATCH = {"size": 8}
SHAPE = {"width": 96, "layers": 2, "context": 128}
COMMON: dict[str, Any] = {
    "seed": 0,
    "threads": 1,
    "compile": False,
    "dtype": "float32",
    "batch": BATCH,
    "evaluate_every": 30,
    "reading": {"validation": 0.15, "test": 0.15},
}
PARENT = {**COMMON, "budget": "800k-tokens", "model": SHAPE, "tokenizer": {"vocab_size": 1024}, "evaluate_every": 100}
PARENT["reading"] = {"validation": 0.01, "test": 0.01}
SETTINGS: dict[str, dict[str, Any]] = {
    "overfitted": {
        "budget": "16-epochs",
        "patience": 0,
        "optimizer": {"weight_decay": 0.0},
        "model": {**SHAPE, "dropout": 0.0},
        "tokenizer": {"vocab_size": 1024},
    },
    "regularised": {
        "budget": "10-epochs",
        "optimizer": {"weight_decay": 0.3},
        "model": {**SHAPE, "dropout": 0.2},
        "tokenizer": {"vocab_size": 1024},
    },
    "transferred": {"budget": "4-epochs", "evaluate_every": 10, "model": {"dropout": 0.2}},
}
PROMPT = "Enter the King"
RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, FIGURE = DOCS / "overfitting.md", DOCS / "overfitting.svg"


def write_texts(folder: Path) -> tuple[Path, Path]:
    """The scenes of the play, and everything else."""
    fetch(CORPUS)
    scenes, others = folder / "play", folder / "others"
    for made in (scenes, others):
        made.mkdir()
    for document in open_source(CORPUS):
        if document.id != PLAY:
            (others / f"{document.id}.txt").write_text(document.text, encoding="utf-8")
            continue
        for number, scene in enumerate(SCENE.split(document.text)):
            (scenes / f"{number:02}.txt").write_text(scene, encoding="utf-8")
    return scenes, others


def measure(cell: str, folder: Path, scenes: Path, others: Path) -> dict[str, Any]:
    """Train one model and return what the page needs."""
    settings = {**COMMON, **SETTINGS[cell]}
    parent = None
    if cell == "transferred":
        parent = train(others, None, folder / "parent", config=PARENT)
        settings["start"] = str(parent.path)
    run = train(scenes, None, folder / cell, config=settings)
    lineage = run.read_lineage()
    kept = ("step", "bits_per_byte", "validation_bits_per_byte")
    records = run.read_metrics()
    lean = [[None if record.get(key) is None else round(record[key], 4) for key in kept] for record in records]
    model = bimo.load(run.path)
    return {
        "cell": cell,
        "settings": SETTINGS[cell],
        "seconds": round(sum(one["cost"]["cpu_seconds"] for one in _lineages(run, parent)), 1),
        "machine": lineage["machine"],
        "versions": lineage["versions"],
        "parameters": lineage["model"]["parameters"],
        "train_bytes": lineage["data"]["train"]["bytes"],
        "metrics": lineage["metrics"],
        "parent": parent and parent.read_lineage()["metrics"],
        "last_weights": _last_weights(run),
        "parent_before": parent and _bits(load_model(parent.path), run, Tokenizer.load(parent.path)),
        "sample": model.generate(PROMPT, seed=1, min_p=0.05, max_new_tokens=110)[0],
        "records": lean,
    }


def _lineages(*runs: Run | None) -> list[dict[str, Any]]:
    return [run.read_lineage() for run in runs if run is not None]


def _last_weights(run: Run) -> float:
    """Bits per byte of the test text under the weights that training ended with, which the run did not keep as best."""
    checkpoint, model = load_checkpoint(run.checkpoints), load_model(run.path)
    assert checkpoint is not None
    model.load_state_dict({name: checkpoint.tensors[f"model.{name}"] for name in model.state_dict()})
    return _bits(model, run, Tokenizer.load(run.path))


def _bits(model: Any, run: Run, tokenizer: Tokenizer) -> float:
    documents = open_source(run.checkpoints / "test")
    return bits_per_byte(score_documents(model, documents, tokenizer, context_length=SHAPE["context"])).value


WIDTH, HEIGHT = 1200, 530
LEFT, TOP, PANEL, GAP, TALL = 84, 158, 340, 26, 290  # of the panels
NAMES = {
    "overfitted": ("overfitted", "16 epochs, no dropout, no weight decay"),
    "regularised": ("regularised", "dropout, weight decay, early stopping"),
    "transferred": ("transferred", "begun from all other plays, regularised"),
}
STYLE = """
    text { fill: #565249; font-size: 14px }
    .title { font-size: 24px; font-weight: 650; fill: #23262e }
    .name { font-size: 18px; font-weight: 650; fill: #23262e }
    .grid { stroke: #e9e2d3; stroke-width: 1 }
    .axis { stroke: #8b8474; stroke-width: 1.2 }
    .raw { fill: none; stroke: #3f618f; stroke-width: 1; opacity: .22; vector-effect: non-scaling-stroke }
    .train { fill: none; stroke: #3f618f; stroke-width: 2.4; stroke-linejoin: round;
      vector-effect: non-scaling-stroke }
    .held { fill: none; stroke: #a83a26; stroke-width: 2.6; stroke-linejoin: round; stroke-linecap: round }
    .dot { fill: #a83a26 } .ring { fill: #fbf8f1; stroke: #a83a26; stroke-width: 2.4 }
    .gap { fill: #a83a26; opacity: .08 }
    .blue { fill: #3f618f; font-weight: 600 } .red { fill: #a83a26; font-weight: 600 }
    .mid { text-anchor: middle } .end { text-anchor: end }"""


def figure(cells: Sequence[Mapping[str, Any]]) -> str:
    """Three panels on one scale: bits per byte of the text learned from, and of text held out, by step."""
    values = [value for cell in cells for _, *pair in cell["records"][20:] for value in pair if value is not None]
    y = Axis(min(0.0, min(values)) if min(values) < 0.5 else min(values) - 0.15, min(4.2, max(values) + 0.1))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d"',
        "     font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif\">",
        '  <title id="t">Overfitted, regularised, transferred</title>',
        '  <desc id="d">Bits per byte by training step of three models of one play: of the scenes they learn from, and '
        "of scenes held out. The numbers are in the table below the figure.</desc>",
        f"  <style>{STYLE}\n  </style>",
        f'  <rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="22" fill="#fbf8f1" stroke="#e6decd" '
        'stroke-width="2"/>',
        f'  <text class="title" x="{LEFT}" y="52">One play, three ways to learn it</text>',
        f'  <text x="{LEFT}" y="78">bits per byte: <tspan class="blue">scenes it learns from</tspan> and '
        '<tspan class="red">scenes held out</tspan>; fewer is better, a ring marks the best</text>',
    ]
    for number, cell in enumerate(cells):
        parts += _panel(cell, LEFT + number * (PANEL + GAP), y, first=number == 0)
    middle = LEFT + (3 * PANEL + 2 * GAP) / 2
    parts += [f'  <text class="mid" x="{middle:g}" y="{TOP + TALL + 54}">training step</text>', "</svg>", ""]
    return "\n".join(parts)


def _panel(cell: Mapping[str, Any], left: float, y: Axis, *, first: bool) -> list[str]:
    steps = [float(step) for step, _, _ in cell["records"]]
    losses = [value for _, value, _ in cell["records"]]
    held = [(step, value) for step, _, value in cell["records"] if value is not None]
    x = Axis(0.0, steps[-1])
    name, how = NAMES[cell["cell"]]
    clip = f"clip-{cell['cell']}"

    def at(step: float, value: float) -> tuple[float, float]:
        return left + PANEL * x.share(step), TOP + TALL * (1 - y.share(min(value, y.high)))

    parts = [
        f'  <clipPath id="{clip}"><rect x="{left}" y="{TOP}" width="{PANEL}" height="{TALL}"/></clipPath>',
        f'  <text class="name" x="{left}" y="{TOP - 38}">{name}</text>',
        f'  <text x="{left}" y="{TOP - 16}">{how}</text>',
    ]
    for value in ticks(y.low, y.high, 7):
        height = at(0, value)[1]
        parts.append(f'  <path class="grid" d="M{left} {height:.1f}h{PANEL}"/>')
        if first:
            parts.append(f'  <text class="end" x="{left - 12}" y="{height + 5:.1f}">{value:.1f}</text>')
    for step in ticks(0.0, steps[-1], 5, whole=True):
        across = at(step, y.low)[0]
        parts.append(f'  <text class="mid" x="{across:.1f}" y="{TOP + TALL + 24}">{step:,.0f}</text>')
    smooth = smoothed(losses)
    scale = f'transform="translate({left} {TOP}) scale({PANEL / SIDE:g} {TALL / SIDE:g})"'
    upper = [at(step, value) for step, value in held]
    lower = [at(step, smooth[min(len(smooth), int(step)) - 1] or 0.0) for step, _ in held]
    outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
    best_step, best = min(held, key=lambda pair: pair[1])
    ring = at(best_step, best)
    last, beside = upper[-1], min(max(ring[0], left + 24), left + PANEL - 24)
    below = last[1] + 26 if last[1] < TOP + 40 else last[1] - 16
    parts += [
        f'  <g clip-path="url(#{clip})">',
        f'    <polygon class="gap" points="{outline}"/>',
        f'    <path class="raw" d="{path(steps, losses, x, y)}" {scale}/>',
        f'    <path class="train" d="{path(steps, smooth, x, y)}" {scale}/>',
        f'    <polyline class="held" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in upper)}"/>',
        "  </g>",
        f'  <path class="axis" d="M{left} {TOP + TALL}h{PANEL}"/>',
        f'  <circle class="ring" cx="{ring[0]:.1f}" cy="{ring[1]:.1f}" r="6"/>',
        f'  <text class="red mid" x="{beside:.1f}" y="{ring[1] - 14:.1f}">{best:.2f}</text>',
    ]
    if f"{held[-1][1]:.2f}" != f"{best:.2f}":
        parts.append(f'  <text class="red end" x="{left + PANEL - 6}" y="{below:.1f}">{held[-1][1]:.2f}</text>')
    end = at(steps[-1], smooth[-1] or 0.0)
    parts.append(f'  <text class="blue end" x="{left + PANEL - 6}" y="{end[1] + 22:.1f}">{smooth[-1]:.2f}</text>')
    return parts


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """The finished cells as Markdown."""
    lines = [
        "| model | steps | text read | learned text at the end | held-out scenes, weights at the end "
        "| held-out scenes, best weights | processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        metrics = cell["metrics"]
        end = smoothed([value for _, value, _ in cell["records"]])[-1]
        best = metrics["test_bits_per_byte"]
        interval = f" ({best['low']:.2f} to {best['high']:.2f})" if best["low"] is not None else ""
        row = [
            cell["cell"],
            f"{metrics['steps']:,}",
            f"{metrics['epochs']:.1f} times",
            f"{end:.2f}",
            f"{cell['last_weights']:.3f}",
            f"**{best['value']:.3f}**{interval}",
            f"{cell['seconds']:.0f} s",
        ]
        lines.append(f"| {' | '.join(row)} |")
    by_name = {cell["cell"]: cell for cell in cells}
    ngrams = cells[0]["metrics"]["baselines"]
    ngram = next((name, value) for name, value in ngrams.items() if name.startswith("n-gram"))
    lines.append(f"| {ngram[0]} | | | | | {ngram[1]['value']:.3f} | |")
    if before := by_name.get("transferred", {}).get("parent_before"):
        lines.append(f"| all other plays, before the play itself | | | | | {before:.3f} | |")
    return "\n".join(lines) + "\n"


def samples(cells: Sequence[Mapping[str, Any]]) -> str:
    """What the models write, as Markdown."""
    parts = []
    for cell in cells:
        text = cell["sample"].strip()
        parts.append(f"**{cell['cell']}**\n\n```text\n{PROMPT}{'' if text[:1] in ',.;:!?' else ' '}{text}\n```\n")
    return "\n".join(parts)


def write_page() -> None:
    """Put figure, table and samples of the cells that there are in place."""
    paths = [RESULTS / f"overfitting-{cell}.json" for cell in CELLS]
    cells = [files.read_json(path) for path in paths if path.exists()]
    files.write_text(FIGURE, figure(cells))
    page = PAGE.read_text(encoding="utf-8")
    for name, content in (("table", table(cells)), ("samples", samples(cells))):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    files.write_text(PAGE, page)


def main(arguments: Sequence[str]) -> None:
    """Train what is missing, then write the page."""
    wanted = [name for name in arguments if name in CELLS] or CELLS
    with tempfile.TemporaryDirectory() as folder:
        texts = None
        for cell in () if "--page" in arguments else wanted:
            target = RESULTS / f"overfitting-{cell}.json"
            if target.exists():
                continue
            texts = texts or write_texts(Path(folder))
            began = time.monotonic()
            files.write_json(target, measure(cell, Path(folder), *texts))
            print(f"{cell}: {time.monotonic() - began:.0f} s")
    write_page()


if __name__ == "__main__":
    main(sys.argv[1:])
