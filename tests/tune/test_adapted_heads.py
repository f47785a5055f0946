"""LoRA beneath a head: what the adapter holds, alone, merged and in PEFT's hands."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bimo.models.classifier import load_text_classifier
from bimo.models.merge_adapter import merge_adapter
from bimo.models.token_classifier import load_token_classifier
from bimo.run import Run
from bimo.tune.tune import tune
from tests.models.bert_folder import bert_folder

FILLERS, KINDS = ["the", "film", "is", "a"], {"good": "yes", "bad": "no"}
TEXTS = ["the film is good", "bad film", "好 good film is a bad"]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module", params=["classify", "label"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rows(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator, lines = random.Random(0), []
    for _ in range(300):
        words = [*generator.choices(FILLERS, k=generator.randint(2, 5)), kind := generator.choice(list(KINDS))]
        generator.shuffle(words)
        row: dict[str, Any] = {"text": " ".join(words), "label": KINDS[kind]}
        if task == "label":
            row = {"tokens": words, "labels": [KINDS.get(word, "other") for word in words]}
        lines.append(json.dumps(row) + "\n")
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    lora = {"rank": 3, "base": "float32"}
    held = {"validation": 0.2, "test": 0.1}
    return tiny | {"steps": 40, "evaluate_every": 20, "batch": {"size": 4}, "reading": held, "lora": lora}


@pytest.fixture(scope="module")
def run(task: str, encoder_folder: Path, rows: Path, settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tune(task, encoder_folder, rows, tmp_path_factory.mktemp("lora") / "run", config=settings, quiet=True)


def shares(folder: Path, task: str) -> np.ndarray[Any, Any]:
    """The probabilities that a folder's model gives, to classes or to the labels it chooses."""
    if task == "classify":
        return np.array(load_text_classifier(folder).probabilities(TEXTS))
    return np.array([word.probability for words in load_token_classifier(folder).label(TEXTS) for word in words])


def test_alone_it_is_small_and_says_the_same(
    task: str, run: Run, encoder_folder: Path, rows: Path, settings: Any, tmp_path: Path
) -> None:
    assert run.read_lineage()["metrics"]["temperature"] != 1
    small = {**settings, "lora": {**settings["lora"], "adapter_only": True}}
    alone = tune(task, encoder_folder, rows, tmp_path / "run", config=small, quiet=True)
    assert not list(alone.path.rglob("model.safetensors"))
    assert np.allclose(shares(alone.path, task), shares(run.path, task), atol=1e-5)
    whole = merge_adapter(alone.path, tmp_path / "whole")
    assert np.allclose(shares(whole, task), shares(run.path, task), atol=1e-5)


@pytest.mark.slow  # importing peft takes seconds
def test_peft_computes_the_same(task: str, run: Run, encoder_folder: Path) -> None:
    peft = pytest.importorskip("peft")
    import transformers

    name = {"classify": "AutoModelForSequenceClassification", "label": "AutoModelForTokenClassification"}[task]
    stock, count = getattr(transformers, name), len(json.loads((run.path / "config.json").read_text())["id2label"])
    base = stock.from_pretrained(encoder_folder, num_labels=count)
    theirs = peft.PeftModel.from_pretrained(base, run.path / "adapter").eval()
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])
    assert torch.allclose(theirs(ids).logits, stock.from_pretrained(run.path).eval()(ids).logits, atol=1e-5, rtol=1e-4)
