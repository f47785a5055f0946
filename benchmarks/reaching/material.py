"""What the rows begin with: labelled sets as files, and models, imported or pretrained by bimo and then kept."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.reaching.pairs import everything, pages, rows_of
from benchmarks.reaching.rows import CACHE, ROOT, Row
from bimo import files
from bimo.tune.arithmetic import problems

SUMS, LARGEST = 9_000, 99
FORMS = ("{prompt} {answer}", "{prompt} let me see, {answer} I think", "{prompt} the result is {answer}.")
SHARES = (0.2, 0.4, 0.4)  # of the forms above, in the text that the model of sums reads


def data(row: Row) -> list[str]:
    """What ``bimo tune`` is told of a row's data."""
    if not row.data:
        return ["--data", str(_kept("sums.jsonl", lambda: _sums()[SUMS // 2 :]))]
    told = [word for name in row.data for word in ("--data", name)]
    if row.tested is None:
        return told + [word for name in row.data for word in ("--test", name)]
    some = _kept(f"{row.name}-test.jsonl", lambda: random.Random(0).sample(tested(row), row.tested or 0))
    return [*told, "--test", str(some)]


def tested(row: Row) -> list[Mapping[str, Any]]:
    """The rows to measure on that its sets have."""
    return [one for name in row.data for one in rows_of(name, tested=True)]


def out_of_reach(name: str) -> bool:
    """Whether a model is yet to be pretrained, for which a CPU would take days."""
    import torch

    return name in ON_A_GPU and not _is_made(CACHE / "models" / name) and not torch.cuda.is_available()


def _is_made(folder: Path) -> bool:
    return (folder / "lineage.json").is_file() and files.read_json(folder / "lineage.json")["status"] == "finished"


def model(name: str) -> Path:
    """The folder of a model, made once."""
    folder = CACHE / "models" / name
    if not _is_made(folder):
        command = MODELS[name]()
        print(f"{name}: bimo {' '.join(command)}", flush=True)
        run = [sys.executable, "-m", "bimo", *command, "--out", str(folder)]
        if command[0] == "train" and folder.exists():
            run.append("--resume")
        subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def _pretrain(text: Callable[[], Iterable[Mapping[str, Any]]], name: str, budget: str, *settings: str) -> list[str]:
    path = _kept(f"{name}.jsonl", text)
    return ["train", "--data", str(path), "--budget", budget, "--set", "reading.test=0.01", *settings]


def _pretrain_all() -> list[str]:
    """On a GPU, four minutes of an H200; help stands in the text twice, which the doctor would refuse."""
    size = ("model.width=384", "model.layers=6", "model.context=256", "tokenizer.vocab_size=8000")
    shares = ("reading.validation=0.005", "reading.test=0.005", "model.dropout=0.1", "batch.size=64")
    return [*_pretrain(everything, "programs-zh", "10-epochs", *size, *shares), "--no-doctor"]


def _kept(name: str, rows: Callable[[], Iterable[Mapping[str, Any]]]) -> Path:
    path = CACHE / "texts" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()))
    return path


def _reviews() -> Iterator[dict[str, str]]:
    for row in rows_of("reviews-zh", tested=False):
        yield {"text": row["text"]}


def _both(name: str, language: str) -> Callable[[], Iterator[dict[str, str]]]:
    return lambda: ({"text": page} for page in pages(name, language))


def _sums() -> list[dict[str, str]]:
    rows = problems(SUMS, largest=LARGEST, wording="bare", seed=1)
    random.Random(0).shuffle(rows)
    return rows


def _sum_texts() -> Iterator[dict[str, str]]:
    """Sums whose answers are mostly inside a sentence: how they should be given is left to the reward."""
    generator = random.Random(0)
    for _ in range(4):
        for row in _sums()[: SUMS // 2]:
            yield {"text": generator.choices(FORMS, SHARES)[0].format(**row)}


ON_A_GPU = ("programs-zh",)
_SMALL = ("model.width=256", "model.layers=6", "model.context=256")
_OWN = (*_SMALL, "tokenizer.vocab_size=6000")
MODELS: Mapping[str, Callable[[], list[str]]] = {
    "smollm2": lambda: ["import", "smollm2"],
    "minilm": lambda: ["import", "minilm"],
    "reviews-zh": lambda: _pretrain(_reviews, "reviews-zh", "8-epochs", *_OWN),
    "help-fr": lambda: _pretrain(_both("office-en-fr", "fr"), "help-fr", "3-epochs", *_OWN),
    "programs-zh": _pretrain_all,
    "debian-fr": lambda: _pretrain(_both("debian-en-fr", "fr"), "debian-fr", "1-epochs", *_OWN),
    "wiki-en": lambda: ["train", "--data", "wiki-en", "--budget", "2-epochs", "--set", *_SMALL],
    "sums": lambda: _pretrain(
        _sum_texts, "sums-text", "4-epochs", "model.width=128", "model.layers=4", "model.context=64",
        "tokenizer.vocab_size=262",
    ),
}  # fmt: skip
