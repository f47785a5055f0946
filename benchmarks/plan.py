"""Whether the dial keeps its word: what was predicted before step 1 against what happened, over 12 budgets.

    python benchmarks/plan.py            # the cells that are missing, then the tables in docs/benchmarks.md
    python benchmarks/plan.py --quick    # only the budgets of one minute
    python benchmarks/plan.py --sweep    # also the shapes beside the chosen one, for the two budgets in SWEPT
    python benchmarks/plan.py --table    # only the tables

A cell is one training run in a process of its own; its figures are kept in benchmarks/results/plan/. Delete a file to
measure its cell again. The constants of the forecast come from other runs: benchmarks/scaling.py.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bimo import files
from bimo.text.corpora import fetch

CORPORA = ("shakespeare", "sanguo", "python-stdlib")
BUDGETS = ("1m", "3m", "8m", "15m")
SWEPT = (("shakespeare", "3m"), ("sanguo", "8m"))
NEIGHBOURS = (-2, -1, 1, 2)  # steps on the ladder of shapes
RESULTS = Path(__file__).parent / "results" / "plan"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- plan: begin -->\n", "<!-- plan: end -->"
LIMITS = {"wall_seconds": 0.10, "peak_memory_bytes": 0.10, "bits_per_byte": 0.04}


def measure(corpus: str, budget: str, shape: tuple[int, int] | None) -> dict[str, Any]:
    """Train once, as a user would, and return what the tables need.

    Args:
        shape: width and layers, pinned; None leaves them to the plan.
    """
    fetch(corpus)
    pinned = ["--set", f"model.width={shape[0]}", f"model.layers={shape[1]}"] if shape else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["train", "--data", corpus, "--budget", budget, "--out", str(out), *pinned]
        subprocess.run([sys.executable, "-m", "bimo", *words], check=True)
        lineage = files.read_json(out / "lineage.json")
        config = files.read_json(out / "config.json")
    return {
        "corpus": corpus,
        "budget": budget,
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "predicted": lineage["plan"]["predicted"],
        "errors": lineage["plan"]["errors"],
        "events": lineage["events"],
        "cost": lineage["cost"],
        "metrics": lineage["metrics"],
        "parameters": lineage["model"]["parameters"],
        "machine": lineage["machine"],
        "versions": lineage["versions"],
    }


def complete(budgets: tuple[str, ...], sweep: bool) -> None:
    """Measure the missing cells."""
    for budget in budgets:
        for corpus in CORPORA:
            path = RESULTS / f"{corpus}-{budget}.json"
            if not path.exists():
                files.write_json(path, measure(corpus, budget, None))
    for corpus, budget in SWEPT if sweep else ():
        chosen = files.read_json(RESULTS / f"{corpus}-{budget}.json")
        for shape in neighbours(chosen["width"], chosen["layers"]):
            path = RESULTS / f"sweep-{corpus}-{budget}-{shape[0]}x{shape[1]}.json"
            if not path.exists():
                files.write_json(path, measure(corpus, budget, shape))


def neighbours(width: int, layers: int) -> list[tuple[int, int]]:
    """The shapes beside one on the ladder."""
    from bimo.train.choice import SHAPES

    place = SHAPES.index((width, layers))
    return [SHAPES[place + step] for step in NEIGHBOURS if 0 <= place + step < len(SHAPES)]


def table(cells: list[dict[str, Any]]) -> str:
    """Prediction against reality as Markdown."""
    lines = [
        "| corpus | budget | model | wall-clock | expected | peak memory | expected | bits per byte | expected |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = {budget: place for place, budget in enumerate(BUDGETS)}
    for cell in sorted(cells, key=lambda one: (CORPORA.index(one["corpus"]), order[one["budget"]])):
        predicted, errors, cost = cell["predicted"], cell["errors"], cell["cost"]
        bits = predicted["bits_per_byte"]
        row = [
            *(f"`{cell['corpus']}`", cell["budget"], f"{cell['width']} x {cell['layers']}"),
            f"{cost['wall_seconds']:.0f} s",
            f"{predicted['wall_seconds']:.0f} s ({errors['wall_seconds']:+.1%})",
            f"{cost['peak_memory_bytes'] / 1e6:,.0f} MB",
            f"{predicted['peak_memory_bytes'] / 1e6:,.0f} MB ({errors['peak_memory_bytes']:+.1%})",
            f"{cell['metrics']['test_bits_per_byte']['value']:.3f}",
            f"{bits['value']:.3f}, {bits['low']:.3f} to {bits['high']:.3f} ({errors['bits_per_byte']:+.1%})",
        ]
        lines.append(f"| {' | '.join(row)} |")
    if cells:
        lines.append("")
        for name, limit in LIMITS.items():
            off = [abs(cell["errors"][name]) for cell in cells]
            inside = sum(one <= limit for one in off)
            said = f"median {statistics.median(off):.1%}, largest {max(off):.1%}"
            lines.append(f"- {name.replace('_', ' ')}: {said}, {inside} of {len(off)} within {limit:.0%}")
    return "\n".join(lines) + "\n"


def sweep_table(cells: list[dict[str, Any]], swept: list[dict[str, Any]]) -> str:
    """The chosen shape beside its neighbours at the same wall-clock time."""
    lines = ["", "| corpus | budget | width x layers | bits per byte | against the chosen |", "|---|---|---|---|---|"]
    for corpus, budget in SWEPT:
        own = [cell for cell in cells if (cell["corpus"], cell["budget"]) == (corpus, budget)]
        others = [cell for cell in swept if (cell["corpus"], cell["budget"]) == (corpus, budget)]
        if not own or not others:
            continue
        reference = own[0]["metrics"]["test_bits_per_byte"]["value"]
        for cell in sorted([*own, *others], key=lambda one: one["parameters"]):
            value = cell["metrics"]["test_bits_per_byte"]["value"]
            mark = "**chosen**" if cell is own[0] else f"{value / reference - 1:+.1%}"
            shape = f"{cell['width']} x {cell['layers']}"
            lines.append(f"| `{corpus}` | {budget} | {shape} | {value:.3f} | {mark} |")
    return "\n".join(lines) + "\n" if len(lines) > 3 else ""


def main() -> None:
    """Measure what is missing and write the tables."""
    if "--table" not in sys.argv:
        complete(BUDGETS[:1] if "--quick" in sys.argv else BUDGETS, "--sweep" in sys.argv)
    paths = sorted(RESULTS.glob("*.json"))
    cells = [files.read_json(path) for path in paths if not path.name.startswith("sweep-")]
    swept = [files.read_json(path) for path in paths if path.name.startswith("sweep-")]
    text = table(cells) + sweep_table(cells, swept)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    files.write_text(PAGE, before + BEGIN + text + END + after)
    print(text)


if __name__ == "__main__":
    main()
