"""What a pretrained model is worth with few labels, and what tuning makes it forget: docs/transfer.md.

    python benchmarks/transfer.py                     # the cells that are missing, then the page
    python benchmarks/transfer.py en-minilm-100-0     # only this cell, and what it needs
    python benchmarks/transfer.py --seeds 3           # seeds 0, 1 and 2: other labels, other heads
    python benchmarks/transfer.py --cells             # what the cells are, and which are finished
    python benchmarks/transfer.py --table             # only the page

Each cell is two or three commands of bimo in processes of their own, with budgets in epochs or tokens, so that its
quality does not depend on what else the machine does. A finished cell is kept in benchmarks/results/transfer/; delete
its file to measure it again. Models are kept in runs/transfer/. About 90 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.transferring.page import write_page
from bimo import files
from bimo.device import machine_facts, seed_for
from bimo.run import Run
from bimo.text.labelled import fetch as fetch_labelled

ROOT = Path(__file__).parents[1]
RESULTS, MODELS = ROOT / "benchmarks" / "results" / "transfer", ROOT / "runs" / "transfer"
SETS = {"en": "sarcasm", "zh": "reviews-zh"}
TEXTS = {"en": ("wiki-en", "boolq-passages"), "zh": ("sanguo",)}  # beside the training texts of the set, without labels
BUDGETS = {"en": "3m-tokens", "zh": "2m-tokens"}  # of pretraining
BASE = (
    *("seed=0", "samples=false", "compile=false", "reading.validation=0.02", "reading.test=0.02", "batch.size=16"),
    *("model.width=192", "model.layers=4", "model.heads=3", "model.kv_heads=3", "model.mlp_width=512"),
    *("model.context=128", "tokenizer.vocab_size=4096"),
)
SIZES: tuple[int | None, ...] = (100, 1000, None)  # None: all
WAYS = {"en": ("tfidf", "scratch", "bimo", "minilm", "smollm2"), "zh": ("tfidf", "scratch", "bimo")}
EPOCHS = {100: 10, 1000: 5, None: 2}
MOST = {"smollm2": 4000}  # labels of "all", so that a cell takes no more than ten minutes of two cores
TEST_ROWS = 1000
HELD_OUT = ("reading.validation=0.1", "reading.test=0")  # of the labels given; the test rows are the set's own
# A model that knows nothing has everything to learn: more passes at a higher rate, which is better for it.
SETTINGS: dict[str, tuple[str, ...]] = {
    "scratch": ("optimizer.learning_rate=1e-3", "optimizer.adamw_learning_rate=1e-3")
}
PASSES = {"scratch": 2}  # times the epochs of the others
FLAGS = {"smollm2": ("--lora",)}
FORGETTING = (  # the model, the rows it is tuned on, how long
    ("bimo", "alpaca-en", "100k-tokens"),
    ("smollm2", "alpaca-en", "20k-tokens"),
    ("smollm2", "alpaca-zh", "20k-tokens"),
)
TUNINGS = {"full": (), "lora": ("--lora",)}
GENERAL = ("wiki-en", 60_000)  # text for what SmolLM2 forgets, in bytes


@dataclass(frozen=True)
class Cell:
    """One row of the page: of labels (``size`` of them), or of what is forgotten when ``rows`` are learned."""

    model: str
    seed: int
    language: str = "en"
    size: int | None = None
    rows: str = ""
    way: str = ""
    budget: str = ""

    @property
    def name(self) -> str:
        what = f"forgets-{self.model}-{self.rows}-{self.way}" if self.rows else self._labels
        return f"{what}-{self.seed}"

    @property
    def _labels(self) -> str:
        return f"{self.language}-{self.model}-{self.size or 'all'}"

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.name}.json"


def cells(seeds: int) -> Iterator[Cell]:
    """All cells, the cheapest kinds first."""
    for seed in range(seeds):
        for language, ways in WAYS.items():
            for model in ways:
                yield from (Cell(model, seed, language, size) for size in SIZES)
        for model, rows, budget in FORGETTING:
            yield from (Cell(model, seed, rows=rows, way=way, budget=budget) for way in TUNINGS)


def measure(cell: Cell) -> dict[str, Any]:
    """Everything that the page says of a cell.

    Raises:
        SystemExit: a command failed; shows what it said.
    """
    figures = forgets(cell) if cell.rows else classifies(cell)
    facts = {"cell": cell.name, "model": cell.model, "seed": cell.seed, "language": cell.language}
    return {**facts, **figures, "machine": machine_facts()}


@dataclass(frozen=True)
class Spent:
    """What a command printed, and what it took: processor seconds of all its threads, peak resident bytes."""

    printed: str
    seconds: float
    memory: int


def bimo(*arguments: str | Path) -> Spent:
    """Run a command of bimo in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "bimo", *map(str, arguments)]
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=MODELS, env=environment, stdout=printed, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command[2:])} failed:\n{errors.read().decode(errors='replace')[-3000:]}")
        printed.seek(0)
        output = printed.read().decode()
    return Spent(output, round(usage.ru_utime + usage.ru_stime, 1), usage.ru_maxrss * 1024)


def rows_of(language: str, split: str) -> list[str]:
    """The rows of a labelled set as JSON lines."""
    return (fetch_labelled(SETS[language]) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)


def drawn(lines: Sequence[str], count: int | None, seed: int) -> list[str]:
    """So many lines, in an order that the seed decides; more of them begin with the fewer."""
    import numpy as np

    order = np.random.Generator(np.random.PCG64(seed_for(seed, "labels"))).permutation(len(lines))
    return [lines[place] for place in order[:count]]


def written(name: str, lines: Sequence[str]) -> Path:
    """A file of rows, for a command."""
    path = MODELS / name
    path.write_text("".join(lines), encoding="utf-8")
    return path


def classifies(cell: Cell) -> dict[str, Any]:
    """Tune on so many labels, and ask for the classes of the set's own test rows, which no other step has read."""
    from bimo.evaluate.intervals import wilson

    lines = drawn(rows_of(cell.language, "train"), cell.size or MOST.get(cell.model), cell.seed)
    tests = [json.loads(line) for line in drawn(rows_of(cell.language, "test"), TEST_ROWS, 0)]
    if cell.model == "tfidf":
        chosen, spent = by_words([json.loads(line) for line in lines], [row["text"] for row in tests])
    else:
        chosen, spent = by_model(cell, lines, tests)
    right = sum(one == row["label"] for one, row in zip(chosen, tests, strict=True))
    size = {"size": cell.size or "all", "labels": len(lines), "test_rows": len(tests)}
    return {**size, "accuracy": wilson(right, len(tests)), **spent}


def by_words(rows: Sequence[Mapping[str, str]], texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The baseline that needs no model."""
    from bimo.evaluate.tfidf import TfIdf

    began = time.process_time()
    found = TfIdf([row["text"] for row in rows], [row["label"] for row in rows]).predict(texts)
    return found, {"seconds": round(time.process_time() - began, 1)}


def by_model(cell: Cell, lines: Sequence[str], tests: Sequence[Mapping[str, str]]) -> tuple[list[str], dict[str, Any]]:
    """`bimo tune classify`, then `bimo classify`."""
    model, out = ready(cell.model, cell.language), MODELS / cell.name
    labels = written(f"{cell.name}-labels.jsonl", lines)
    texts = written(
        f"{cell.name}-texts.jsonl", [json.dumps({"text": row["text"]}, ensure_ascii=False) + "\n" for row in tests]
    )
    epochs = EPOCHS[cell.size] * PASSES.get(cell.model, 1)
    settings = (f"seed={cell.seed}", *HELD_OUT, *SETTINGS.get(cell.model, ()))
    options = ("--budget", f"{epochs}-epochs", *FLAGS.get(cell.model, ()), "--set", *settings)
    tuned = bimo("tune", "classify", "--model", model, "--data", labels, *going_on(out), *options)
    asked = bimo("classify", out, "--data", texts, "--json")
    chosen = [json.loads(line)["label"] for line in asked.printed.splitlines()]
    lineage = Run(out).read_lineage()
    metrics = lineage["metrics"]
    shutil.rmtree(out)
    spent = {**of_all_sessions(tuned, lineage), "seconds_of_test": asked.seconds}
    told = {"epochs": metrics["epochs"], "steps": metrics["steps"], "best_step": metrics["best_step"]}
    settled = {"options": [*FLAGS.get(cell.model, ()), *settings], "parent": parent_of(model)}
    return chosen, {**spent, **told, **settled, "parameters": lineage["model"]["parameters"]}


def going_on(out: Path) -> list[str | Path]:
    """Where a run is written; one that was cut off goes on."""
    return ["--out", out, *(["--resume"] if out.exists() else [])]


def of_all_sessions(tuned: Spent, lineage: Mapping[str, Any]) -> dict[str, float]:
    """What a run took; of one that went on, its lineage knows what the last process does not."""
    cost = lineage["cost"]
    return {"seconds": max(tuned.seconds, cost["cpu_seconds"]), "memory": max(tuned.memory, cost["peak_memory_bytes"])}


def parent_of(model: Path) -> dict[str, Any]:
    """What a pretrained model of bimo took, so that the page can say it apart."""
    lineage = Run(model).read_lineage() if Run(model).lineage.is_file() else {}
    if lineage.get("kind") != "base":
        return {}
    metrics = lineage["metrics"]
    return {
        "seconds": round(lineage["cost"]["cpu_seconds"]),
        "tokens": metrics["tokens"],
        "bits_per_byte": metrics["test_bits_per_byte"]["value"],
    }


def forgets(cell: Cell) -> dict[str, Any]:
    """Tune for chat, and measure text of before with the model before and after."""
    model, out = ready(cell.model, "en"), MODELS / cell.name
    data = fetch_labelled(cell.rows) / "train.jsonl"
    before_path = MODELS / f"before-{cell.model}.json"
    if not before_path.exists():
        before_path.write_text(bimo("eval", model, "--data", old_text(cell.model), "--json").printed, encoding="utf-8")
    options = ("--budget", cell.budget, *TUNINGS[cell.way], "--set", f"seed={cell.seed}", "patience=0")
    tuned = bimo("tune", "chat", "--model", model, "--data", data, *going_on(out), *options)
    after = json.loads(bimo("eval", out, "--data", old_text(cell.model), "--json").printed)
    before = files.read_json(before_path)
    lineage = Run(out).read_lineage()
    shutil.rmtree(out)
    new = {"before": lineage["before"]["test_bits_per_byte"], "after": lineage["metrics"]["test_bits_per_byte"]}
    old = {"before": before["bits_per_byte"], "after": after["bits_per_byte"]}
    told = {name: lineage["metrics"][name] for name in ("steps", "best_step", "tokens", "epochs")}
    rows = {side: lineage["data"][side]["examples"] for side in ("train", "test")}
    rates = {one["key"]: one["value"] for one in lineage["plan"]["choices"] if "learning_rate" in one["key"]}
    said = {"rows": cell.rows, "way": cell.way, "budget": cell.budget, "examples": rows, "rates": rates}
    facts = {"old_documents": before["documents"], "old_bytes": before["bytes"]}
    return {**said, "old": old, "new": new, **facts, **told, **of_all_sessions(tuned, lineage)}


def old_text(model: str) -> Path:
    """Text as the model learned from before: held out by its own training, or general English."""
    if model == "bimo":
        return ready("bimo", "en") / "checkpoints" / "test"
    folder = MODELS / "general"
    if not folder.is_dir():
        from bimo.text.corpora import fetch
        from bimo.text.source import open_source

        name, most = GENERAL
        fetch(name)
        with files.new_folder(folder) as new:
            size = 0
            for number, document in enumerate(open_source(name)):
                if number % 97 == 0 and size < most:
                    (new / f"{number:05}.txt").write_text(document.text, encoding="utf-8")
                    size += len(document.text.encode())
    return folder


def ready(model: str, language: str) -> Path:
    """The folder of a model to tune, made if need be."""
    if model in ("minilm", "smollm2"):
        folder = MODELS / model
        if not folder.is_dir():
            bimo("import", model, "--out", folder)
        return folder
    base = pretrained(language)
    return base if model == "bimo" else untrained(base, MODELS / f"scratch-{language}")


def pretrained(language: str) -> Path:
    """A run of `bimo train` on general text and the training texts of the set, without their labels."""
    folder = MODELS / f"base-{language}"
    if folder.is_dir() and Run(folder).read_lineage()["status"] == "finished":
        return folder
    texts = [json.loads(line)["text"] for line in rows_of(language, "train")]
    assert not {*texts} & {json.loads(line)["text"] for line in rows_of(language, "test")}, "a test text was read"
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    sources: list[str | Path] = [*TEXTS[language], written(f"texts-{language}.jsonl", lines)]
    data = [part for source in sources for part in ("--data", source)]
    bimo("train", *data, "--budget", BUDGETS[language], "--out", folder, "--resume", "--set", *BASE)
    return folder


def untrained(base: Path, folder: Path) -> Path:
    """The same shape and tokenizer with the weights that a model is born with: random numbers."""
    if folder.is_dir():
        return folder
    import torch

    from bimo.models import load_model, save_model
    from bimo.tokenizer.tokenizer import Tokenizer

    model = load_model(base, dtype=torch.float32)
    model.init_weights(torch.Generator().manual_seed(seed_for(0, "weights")))
    with files.new_folder(folder) as new:
        save_model(model, new)
        Tokenizer.load(base).save(new)
    return folder


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cells to measure; all that are missing if not given")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0")
    parser.add_argument("--cells", action="store_true", help="list the cells")
    parser.add_argument("--table", action="store_true", help="only write the page")
    given = parser.parse_args()
    wanted = {cell.name: cell for cell in cells(max(1, given.seeds))}
    if unknown := [name for name in given.names if name not in wanted]:
        parser.error(f"there is no cell {unknown[0]}; --cells lists them")
    if given.cells:
        print("\n".join(f"{'done' if cell.path.exists() else '    '}  {name}" for name, cell in wanted.items()))
        return
    MODELS.mkdir(parents=True, exist_ok=True)
    for name in () if given.table else given.names or wanted:
        if not wanted[name].path.exists():
            files.write_json(wanted[name].path, measure(wanted[name]))
            print(f"{name}: finished", flush=True)
    write_page(ROOT / "docs", [files.read_json(path) for path in sorted(RESULTS.glob("*.json"))])


if __name__ == "__main__":
    main()
