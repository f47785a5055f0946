"""Tuning as a whole: a run that learned to answer and to stop, exact resumption, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.config import read_yaml
from bimo.errors import BimoError, ConfigError, DataError, ModelError, RunError, TokenizerError, UsageError
from bimo.models import load_model
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train import doctor
from bimo.train.loop import Progress
from bimo.train.patient import Patient
from bimo.tune import start
from bimo.tune.tune import tune

CHILD = """
import json, sys
from bimo.tune.tune import tune
tune("chat", sys.argv[1], sys.argv[2], sys.argv[3], config=json.loads(sys.argv[4]), resume=True, quiet=True)
"""
Made = Callable[..., Run]


@pytest.fixture(scope="module")
def whole(model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run."""
    return tune("chat", model_folder, talks, tmp_path_factory.mktemp("runs") / "whole", config=tiny, quiet=True)


def weights(run: Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


def test_the_run_is_complete_and_the_model_has_learned(whole: Run, model_folder: Path, talks: Path):
    names = {path.name for path in whole.path.iterdir()}
    assert names >= {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "bimo.yaml", "lineage.json", "metrics.jsonl", "report.html", "README.md"),
    }
    lineage = whole.read_lineage()
    assert lineage["kind"] == "chat" and lineage["status"] == "finished"
    assert lineage["parent"]["folder"] == str(model_folder) and lineage["data"]["columns"] == {"messages": "messages"}
    before, after = (one["test_bits_per_byte"]["value"] for one in (lineage["before"], lineage["metrics"]))
    assert after < 0.8 * before
    card = (whole.path / "README.md").read_text(encoding="utf-8")
    assert (
        f"| bits per byte, before tuning | {before:.3f} |" in card and "bimo chat" in card and "base model" not in card
    )
    records = whole.read_metrics()
    assert [record["step"] for record in records] == list(range(1, 25))
    assert [record["step"] for record in records if "validation_bits_per_byte" in record] == [6, 12, 18, 24]
    assert not [one for one in lineage["doctor"] if one["ok"] is False]


def test_a_budget_of_examples_is_that_many_rows(
    model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config = {**tiny, "steps": None, "batch": {"size": 2, "accumulate": 1}}
    run = tune("chat", model_folder, talks, tmp_path / "run", "40-examples", config=config, quiet=True)
    lineage = run.read_lineage()
    assert lineage["metrics"]["epochs"] == pytest.approx(40 / lineage["data"]["train"]["examples"], abs=0.1)


def test_validating_takes_no_longer_than_training(
    model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    config = {**tiny, "steps": None, "reading": {**tiny.get("reading", {}), "validation": 0.5}}
    run = tune("chat", model_folder, talks, tmp_path / "run", "16-examples", config=config, quiet=True)
    facts = run.read_lineage()["data"]
    assert facts["validation"]["examples"] > 20 and facts["measured"] == {"validation_examples": 8}


def test_stock_transformers_loads_it_and_stops_where_answers_end(whole: Run, model_folder: Path):
    transformers = pytest.importorskip("transformers")
    ours = bimo.load(whole.path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(whole.path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole.path)
    messages = [{"role": "user", "content": "where is 月7?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == ours.chat_ids(messages)
    with torch.no_grad():
        assert torch.allclose(theirs(torch.tensor([ids])).logits, ours.model(torch.tensor([ids])), atol=1e-4)
    end = ours.tokenizer.special["<|im_end|>"]
    ours.require_chat()
    parent = bimo.load(model_folder).conventions
    assert (ours.conventions.prefix, ours.conventions.start) == (parent.prefix, parent.start)
    assert end in theirs.generation_config.eos_token_id and end in ours.conventions.turn_ends


def test_the_same_configuration_gives_the_same_bytes(whole: Run, tmp_path: Path):
    again = tune("chat", out=tmp_path / "again", config=whole.config, quiet=True)
    assert weights(again) == weights(whole)
    assert read_yaml(again.config) == read_yaml(whole.config)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    whole: Run, model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def dying(progress: Progress) -> None:
        if progress.step == 13:
            raise MemoryError

    learn = bimo.train.learn  # type: ignore[attr-defined]
    monkeypatch.setattr(learn, "peak_rates", lambda config: {})
    original = learn.Guard.__call__
    monkeypatch.setattr(learn.Guard, "__call__", lambda self, progress: (original(self, progress), dying(progress)))
    with pytest.raises(MemoryError):
        tune("chat", model_folder, talks, tmp_path / "run", config=tiny, quiet=True)
    monkeypatch.undo()
    resumed = tune("chat", model_folder, talks, tmp_path / "run", config=tiny, resume=True, quiet=True)
    assert weights(resumed) == weights(whole)
    assert [record["step"] for record in resumed.read_metrics()] == list(range(1, 25))
    assert "resumed after step 10" in resumed.read_lineage()["events"]
    assert tune("chat", model_folder, talks, resumed.path, config=tiny, resume=True, quiet=True).path == resumed.path


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 4, 11, 20])
def test_kill_9_and_resume_gives_the_same_bytes(
    at: int, whole: Run, model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path
):
    out = tmp_path / "run"
    command = [sys.executable, "-c", CHILD, str(model_folder), str(talks), str(out), json.dumps(tiny)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    awaited = out / ("tokenizer.json" if at == 0 else "metrics.jsonl")
    while child.poll() is None and not (awaited.exists() and awaited.read_bytes().count(b"\n") >= at):
        time.sleep(0.001)
    child.kill()
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()
    assert weights(tune("chat", model_folder, talks, out, config=tiny, resume=True, quiet=True)) == weights(whole)


def test_resume_on_other_data_is_refused(whole: Run, model_folder: Path, talks: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("bimo.yaml", "lineage.json"):
        (run / name).write_bytes((whole.path / name).read_bytes())
    lineage = Run(run).read_lineage()
    Run(run).lineage.write_text(json.dumps({**lineage, "status": "running"}))
    other = tmp_path / "talks.jsonl"
    other.write_text(talks.read_text(encoding="utf-8").replace("up there", "down here"), encoding="utf-8")
    values = {**read_yaml(whole.config), "data": [str(other)]}
    Run(run).config.write_text(json.dumps(values))
    with pytest.raises(RunError, match="the data changed"):
        tune("chat", out=run, resume=True, quiet=True)


def test_the_doctor_sees_the_whole_and_an_empty_mask_is_refused(
    model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    patients: list[Patient] = []

    def watch(patient: Patient, display: Any) -> Any:
        patients.append(patient)
        raise doctor.Examined(doctor.examine(patient))

    with pytest.raises(doctor.Examined) as seen:
        tune("chat", model_folder, talks, tmp_path / "run", config=tiny, quiet=True, doctor=watch)
    found = {one.name: one for one in seen.value.findings}
    assert all(found[name].ok for name in ("labels", "loss mask", "end of text", "shared text", "packing", "positions"))
    assert not (tmp_path / "run").exists()
    shown = start.patient_of

    def blind(*given: Any) -> Patient:
        patient = shown(*given)
        patient.epoch.first.loss_mask[:] = False
        return patient

    monkeypatch.setattr(start, "patient_of", blind)
    with pytest.raises(BimoError, match="loss mask"):
        tune("chat", model_folder, talks, tmp_path / "run", config=tiny, quiet=True)


def test_a_base_model_without_a_template_gets_one_and_tokens_for_it(
    model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path
):
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        (base / name).write_bytes((model_folder / name).read_bytes())
    definition = json.loads((model_folder / "tokenizer.json").read_text())
    renamed = json.dumps(definition).replace("<|im_start|>", "<|a|>").replace("<|im_end|>", "<|b|>")
    (base / "tokenizer.json").write_text(renamed)
    (base / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    run = tune("chat", base, talks, tmp_path / "run", config={**tiny, "steps": 2}, quiet=True)
    old, new = Tokenizer.load(base), Tokenizer.load(run.path)
    assert new.special["<|im_start|>"] == old.vocab_size and new.special["<|im_end|>"] == old.vocab_size + 1
    model = load_model(run.path)
    assert model.config.vocab_size == old.vocab_size + 2 and new.chat_template
    assert model.config.eos_token_id == [old.vocab_size + 1, old.eos_id]


def test_one_example_is_learned_by_heart(model_folder: Path, tiny: dict[str, Any], tmp_path: Path):
    data = tmp_path / "one.csv"
    data.write_text("question,answer\nWer bist du?,我是笔墨。\n", encoding="utf-8")
    config = {**tiny, "steps": 60, "batch": {"size": 1}, "averaging": 0.0, "model": {"dropout": 0.0}, "patience": 0}
    run = tune("chat", model_folder, data, tmp_path / "run", config=config, quiet=True)
    assert bimo.load(run.path).chat([{"role": "user", "content": "Wer bist du?"}], temperature=0) == "我是笔墨。"
    assert "too few rows" in run.read_lineage()["data"]["note"]


def test_what_cannot_be_done_is_said(model_folder: Path, talks: Path, tiny: dict[str, Any], tmp_path: Path):
    def refused(kind: type[BimoError], match: str, **given: Any) -> None:
        options = {
            "task": "chat",
            "model": model_folder,
            "data": talks,
            "out": tmp_path / "run",
            "config": tiny,
            **given,
        }
        with pytest.raises(kind, match=match):
            tune(**options, quiet=True)
        assert not (tmp_path / "run").exists()

    refused(UsageError, "Did you mean 'messages'", columns={"messages": "mesages"})
    refused(UsageError, "no task 'chatt'.*'chat'", task="chatt")
    refused(ConfigError, "unknown key 'sytem'", options={"sytem": "x"})
    refused(ConfigError, "tokenizer.vocab_size has no part in tuning", overrides=["tokenizer.vocab_size=400"])
    refused(ConfigError, "model.width has no part", overrides=["model.width=512"])
    refused(ConfigError, "model.context is wrong", overrides=["model.context=1024"])
    refused(ConfigError, "budget '1.2-bpb' is not understood", budget="1.2-bpb")
    refused(ModelError, "no model at", model=tmp_path / "none")
    refused(ConfigError, "no data", data=None)
    refused(ConfigError, "of another task", config={**tiny, "task": "qa"})
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"messages": []}\n{"prompt": "x", "answer": ""}\n', encoding="utf-8")
    refused(DataError, "No row of .* can be learned from.*an empty answer", data=empty)
    refused(DataError, "longer than 24 tokens", overrides=["model.context=24"])
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in model_folder.iterdir():
        (plain / path.name).write_bytes(path.read_bytes())
    (plain / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    refused(TokenizerError, "does not end the assistant's turn", model=plain)
