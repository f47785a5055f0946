"""The default three-minute model against n-grams and compressors on the same held-out bytes, three seeds a language.

    python benchmarks/quickstart.py            # the cells that are missing, then the table in docs/benchmarks.md
    python benchmarks/quickstart.py --table    # only the table

A cell is one training run; its figures are kept in benchmarks/results/, so a long table is completed over several
runs. Delete a file to measure its cell again. A seed also chooses the held-out documents.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bimo import files
from bimo.text.corpora import fetch
from bimo.train.pretrain import train

CORPORA = ("shakespeare", "sanguo")
SEEDS = (0, 1, 2)
BUDGET, RESERVE = "3m", 5.0  # as in bimo/commands/quickstart.py
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- quickstart: begin -->\n", "<!-- quickstart: end -->"


def measure(corpus: str, seed: int) -> dict[str, Any]:
    """Train once and return what the table needs."""
    fetch(corpus)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = train(corpus, BUDGET, Path(folder) / "run", overrides=[f"seed={seed}"], reserve=RESERVE, began=began)
        lineage = run.read_lineage()
    return {
        "corpus": corpus,
        "seed": seed,
        "wall_seconds": round(time.monotonic() - began, 1),
        "machine": lineage["machine"],
        "versions": lineage["versions"],
        "parameters": lineage["model"]["parameters"],
        "metrics": lineage["metrics"],
    }


def table(cells: list[dict[str, Any]]) -> str:
    """The finished cells as Markdown."""
    lines = [
        "| corpus | seed | this model | n-gram | difference, paired | gzip -9 | xz -9 | parameters | wall-clock |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        metrics, own = cell["metrics"], cell["metrics"]["test_bits_per_byte"]
        ngram = next(value for name, value in metrics["baselines"].items() if name.startswith("n-gram"))
        difference = metrics["difference_to_ngram"]
        compressed = [f"{metrics['baselines'][name]['value']:.3f}" for name in ("gzip -9", "xz -9")]
        row = [
            *(f"`{cell['corpus']}`", str(cell["seed"])),
            f"**{own['value']:.3f}** ({own['low']:.3f} to {own['high']:.3f})",
            f"{ngram['value']:.3f} ({ngram['low']:.3f} to {ngram['high']:.3f})",
            f"{own['value'] / ngram['value'] - 1:+.1%} ({difference['low']:+.3f} to {difference['high']:+.3f})",
            *compressed,
            f"{cell['parameters'] / 1e6:.2f}M",
            f"{cell['wall_seconds']:.0f} s",
        ]
        lines.append(f"| {' | '.join(row)} |")
    for corpus in CORPORA:
        own = [cell["metrics"]["test_bits_per_byte"]["value"] for cell in cells if cell["corpus"] == corpus]
        if len(own) == len(SEEDS):
            lines.append(f"| `{corpus}` | median | **{statistics.median(own):.3f}** | | | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing and write the table."""
    for corpus in CORPORA:
        for seed in SEEDS:
            path = RESULTS / f"quickstart-{corpus}-{seed}.json"
            if "--table" not in sys.argv and not path.exists():
                files.write_json(path, measure(corpus, seed))
    cells = [files.read_json(path) for path in sorted(RESULTS.glob("quickstart-*.json"))]
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    files.write_text(PAGE, before + BEGIN + table(cells) + END + after)
    print(table(cells))


if __name__ == "__main__":
    main()
