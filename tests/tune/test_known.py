"""What is said of held-out rows that the model to tune, or one before it, has learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bimo.batches.shards import encode_documents, write_tokens
from bimo.config import from_mapping, read_yaml
from bimo.run import Run
from bimo.text.document import Document
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.display import Display
from bimo.train.materials import TOKENS_FOLDER
from bimo.tune.config import TuneConfig
from bimo.tune.known import find_read
from bimo.tune.materials import read_given
from bimo.tune.tasks import make_task
from bimo.tune.tune import tune

NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def answer(n: int) -> str:
    return " ".join(f"{word}{n}" for word in NUMBERS.split())


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {n}", "answer": answer(n)}) + "\n" for n in range(40)))
    return path


@pytest.fixture
def base(tmp_path: Path, model_folder: Path, tokenizer: Tokenizer) -> Path:
    """A model that says that it was trained on the answers to even numbers."""
    folder = tmp_path / "base"
    folder.mkdir()
    for path in model_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    documents = encode_documents([Document(str(n), answer(n), "") for n in range(0, 40, 2)], tokenizer)
    facts = {"tokenizer_hash": "t", "data_hash": "d", "vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id}
    write_tokens(Run(folder).checkpoints / TOKENS_FOLDER, "train", documents, **facts)
    return folder


def tuned(run: Path, start: Path, rows: Path, tiny: dict[str, Any], *, quiet: bool = True) -> dict[str, Any]:
    config = tiny | {"steps": 1, "evaluate_every": 1, "reading": {"validation": 0.2, "test": 0.2}}
    return tune("chat", start, rows, run, config=config, quiet=quiet).read_lineage()


def held_out_evens(run: Path) -> dict[str, int]:
    config = from_mapping(TuneConfig, read_yaml(Run(run).config), where="")
    parts = read_given(config, make_task("chat", {}), Display(quiet=True)).parts
    sides = {"validation": parts.validation, "test": parts.test}
    return {side: sum(row.number % 2 == 0 for row in held) for side, held in sides.items()}


def test_held_out_rows_that_the_model_has_read_are_told(
    base: Path, rows: Path, tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lineage = tuned(tmp_path / "run", base, rows, tiny, quiet=False)
    data = lineage["data"]
    assert data["read_before"] == held_out_evens(tmp_path / "run") and min(data["read_before"].values()) > 0
    said = capsys.readouterr().err
    for side, count in data["read_before"].items():
        assert f"{count} of {data[side]['documents']} {side} rows" in said


def test_what_a_model_before_it_has_read_counts_too(
    base: Path, rows: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"prompt": f"say {n}!", "answer": "so be it"}) + "\n" for n in range(40)))
    between = tmp_path / "between"
    assert sum(tuned(between, base, other, tiny)["data"]["read_before"].values()) == 0
    last = tuned(tmp_path / "last", between, rows, tiny)
    assert last["data"]["read_before"] == held_out_evens(tmp_path / "last")


def test_rows_that_a_model_was_tuned_on_are_known(
    model_folder: Path, rows: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lineage = tuned(run, model_folder, rows, tiny)
    assert lineage["data"]["read_before"] == {"validation": 0, "test": 0}
    found = find_read(run, [answer(n) for n in range(40)], [""] * 40)
    assert found is not None and found[1]
    assert sum(found[0].examples) == 40 - lineage["data"]["test"]["documents"]
    assert find_read(model_folder, ["a"], [""]) is None


def test_a_damaged_folder_before_it_says_nothing(base: Path, rows: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    (Run(base).checkpoints / TOKENS_FOLDER / "train.bin").write_bytes(b"")
    lineage = tuned(tmp_path / "run", base, rows, tiny)
    assert sum(lineage["data"]["read_before"].values()) == 0
