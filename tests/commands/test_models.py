"""The commands that use a trained model: eval, score, generate, chat, info."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

import bimo as package
from bimo.generate.language_model import LanguageModel
from bimo.generate.sampling import Sampling


def test_eval_measures_the_held_out_text(bimo: Any, finished_run: Path) -> None:
    measured = json.loads(bimo("eval", finished_run, "--json").out)
    recorded = json.loads((finished_run / "lineage.json").read_text())["metrics"]
    assert measured["bits_per_byte"]["value"] == pytest.approx(recorded["test_bits_per_byte"]["value"], rel=1e-4)
    documents = measured["per_document"]
    assert len(documents) == measured["documents"] and sum(one["bytes"] for one in documents) == measured["bytes"]
    bits = sum(one["nats"] for one in documents) / math.log(2) / measured["bytes"]
    assert bits == pytest.approx(measured["bits_per_byte"]["value"])
    table = bimo("eval", finished_run).out
    assert f"{measured['bits_per_byte']['value']:.3f}" in table and "95%" in table
    assert all(one["id"] in table for one in documents)


def test_eval_of_other_text(bimo: Any, finished_run: Path, tmp_path: Path) -> None:
    for number in range(45):
        (tmp_path / f"{number}.txt").write_text(f"the king {number} said")
    measured = json.loads(bimo("eval", finished_run, "--data", tmp_path, "--json").out)
    assert measured["documents"] == len(measured["per_document"]) == 45
    assert "and 5 easier ones" in bimo("eval", finished_run, "--data", tmp_path).out


def test_eval_without_text(bimo: Any, run_copy: Path, tmp_path: Path) -> None:
    for path in (run_copy / "checkpoints" / "test").iterdir():
        path.unlink()
    (run_copy / "checkpoints" / "test").rmdir()
    called = bimo("eval", run_copy)
    assert called.code == 1 and "--data" in called.problem
    (tmp_path / "empty").mkdir()
    assert "no readable text" in bimo("eval", run_copy, "--data", tmp_path / "empty").problem


def test_score_adds_up(bimo: Any, finished_run: Path) -> None:
    text = "却说 曹操, the king"
    scored = json.loads(bimo("score", finished_run, text, "--json").out)
    assert scored["logprob"] == pytest.approx(package.load(finished_run).logprob(text), abs=1e-4)
    assert sum(token["logprob"] for token in scored["tokens"]) == pytest.approx(scored["logprob"])
    assert scored["bits_per_byte"] == pytest.approx(-scored["logprob"] / math.log(2) / len(text.encode()))
    shown = bimo("score", finished_run, text)
    assert f"log P(text) = {scored['logprob']:.3f} nats" in shown.out and "曹操" in shown.out
    assert len(re.findall(r"^'", shown.out, flags=re.MULTILINE)) == len(scored["tokens"])
    assert bimo("score", finished_run, "-", stdin=text.encode()).out == shown.out


def test_score_of_nothing(bimo: Any, finished_run: Path) -> None:
    called = bimo("score", finished_run, "")
    assert called.code == 2 and "nothing to score" in called.problem


def test_generate_repeats_with_its_seed(bimo: Any, finished_run: Path) -> None:
    first = bimo("generate", finished_run, "the king", "--max-new-tokens", 9)
    seed = re.search(r"--seed (\d+) repeats", first.err)
    assert first.code == 0 and seed and first.out.startswith("the king")
    for way in ("--stream", "--no-stream"):
        again = bimo("generate", finished_run, "the king", "--max-new-tokens", 9, "--seed", seed[1], way)
        assert again.out == first.out and not again.err
    assert bimo("generate", finished_run, "-", "--max-new-tokens", 9, "--seed", seed[1], stdin=b"the king") == again


def test_generate_several(bimo: Any, finished_run: Path) -> None:
    words = ("generate", finished_run, "却说", "--max-new-tokens", 5, "--seed", 2)
    several = bimo(*words, "--n", 3).out
    assert re.findall(r"^--- (\d) of 3 ---\n却说", several, flags=re.MULTILINE) == ["1", "2", "3"]
    assert several.startswith("--- 1 of 3 ---\n" + bimo(*words).out)


def test_generate_passes_every_option_on(bimo: Any, finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    generate = LanguageModel.generate

    def spy(self: LanguageModel, prompt: str, n: int, **options: Any) -> Any:
        seen.append(options)
        return generate(self, prompt, n, **options)

    monkeypatch.setattr(LanguageModel, "generate", spy)
    given = {
        "max_new_tokens": 2,
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 4,
    }
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert bimo("generate", finished_run, "the", *words, "--stop", "a", "--stop", "b").code == 0
    assert seen == [{**given, "stop": ("a", "b")}]
    assert set(seen[0]) == set(Sampling.__dataclass_fields__) - {"logit_bias"}  # ids are nothing to type


def test_generate_tells_the_true_defaults(bimo: Any) -> None:
    text = " ".join(bimo("generate", "--help").out.replace("│", "").split())
    assert f"tokens to generate at most; {Sampling().max_new_tokens} if not given" in text
    assert f"more varied; {Sampling().temperature} if not given" in text


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--n", 3, "--temperature", 0], 2, "Greedy"),
        (["--n", 3, "--stream"], 2, "--n 3"),
        (["--n", 0], 2, "whole number from 1"),
        (["--top-p", 3], 2, "top_p"),
        (["--max-new-tokens", 0], 2, "max_new_tokens"),
        (["--device", "mps"], 2, "mps"),
    ],
)
def test_generate_refuses(bimo: Any, finished_run: Path, words: list[object], code: int, part: str) -> None:
    called = bimo("generate", finished_run, "the", *words)
    assert called.code == code and part in called.problem


@pytest.mark.parametrize("command", ["eval", "score", "generate", "chat"])
def test_no_model(bimo: Any, tmp_path: Path, command: str) -> None:
    words = ["text"] if command == "score" else []
    missing = bimo(command, tmp_path / "nope", *words)
    assert missing.code == 1 and "nope" in missing.problem
    assert bimo(command, tmp_path, *words).code == 1


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda content: content[: len(content) // 2]),
        ("model.safetensors", lambda content: b"\xff" * 8 + content[8:]),
        ("config.json", lambda content: content[:-9]),
        ("tokenizer.json", lambda content: content[: len(content) // 2]),
        ("tokenizer.json", lambda content: b"{}"),
    ],
)
def test_damaged_files_are_named(bimo: Any, run_copy: Path, name: str, damage: Any) -> None:
    path = run_copy / name
    path.write_bytes(damage(path.read_bytes()))
    called = bimo("generate", run_copy, "the")
    assert called.code == 1 and name in called.problem


def test_chat_with_a_base_model(bimo: Any, finished_run: Path) -> None:
    called = bimo("chat", finished_run, stdin=b"hello\n")
    assert called.code == 1 and "base model" in called.problem and "bimo generate" in called.problem


def test_chat(bimo: Any, run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lineage = json.loads((run_copy / "lineage.json").read_text())
    (run_copy / "lineage.json").write_text(json.dumps({**lineage, "kind": "chat"}))
    seen: list[list[str]] = []

    def answer(self: LanguageModel, messages: Any, **options: Any) -> Any:
        seen.append([message["content"] for message in messages])
        yield from ("yes", "!")

    monkeypatch.setattr(LanguageModel, "stream_chat", answer)
    monkeypatch.setattr(LanguageModel, "chat_ids", lambda self, messages: [1])  # the tiny context has room for them
    lines = "one\n\ntwo\n/reset\n曹操\n/exit\nnever\n".encode()
    called = bimo("chat", run_copy, "--system", "short", stdin=lines)
    assert called == (0, "yes!\n" * 3, "")
    assert seen == [["short", "one"], ["short", "one", "yes!", "two"], ["short", "曹操"]]
    assert bimo("chat", run_copy, stdin=b"one").out == "yes!\n"


def test_chat_goes_on_after_a_question_that_is_too_long(bimo: Any, run_copy: Path) -> None:
    lineage = json.loads((run_copy / "lineage.json").read_text())
    (run_copy / "lineage.json").write_text(json.dumps({**lineage, "kind": "chat"}))
    called = bimo("chat", run_copy, stdin=b"king " * 500 + b"\nhi\n")
    assert called.code == 0 and called.err.count("error: ") == 1 and called.out.count("\n") >= 2


def test_info(bimo: Any, finished_run: Path) -> None:
    lineage = json.loads((finished_run / "lineage.json").read_text())
    shown = bimo("info", finished_run).out
    value = lineage["metrics"]["test_bits_per_byte"]["value"]
    for part in ("finished", "30 documents", lineage["data"]["data_hash"][:16], f"{value:.3f}", "the plan chose"):
        assert part in shown
    assert all(choice["key"] in shown for choice in lineage["plan"]["choices"])
    told = json.loads(bimo("info", finished_run, "--json").out)
    assert told["metrics"] == lineage["metrics"] and told["newest"]["step"] == lineage["metrics"]["steps"]


def test_info_of_a_run_that_is_not_finished(bimo: Any, run_copy: Path) -> None:
    lineage = json.loads((run_copy / "lineage.json").read_text())
    del lineage["model"]
    (run_copy / "lineage.json").write_text(json.dumps({**lineage, "status": "interrupted", "metrics": {}}))
    shown = bimo("info", run_copy).out
    assert "interrupted" in shown and "newest step" in shown and "held-out" not in shown


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"metrics": {"a": 1}}', "{"])
def test_info_of_a_damaged_lineage(bimo: Any, run_copy: Path, content: str) -> None:
    (run_copy / "lineage.json").write_text(content)
    called = bimo("info", run_copy)
    assert called.code == 1 and "lineage.json" in called.problem


def test_info_of_what_is_no_run(bimo: Any, tmp_path: Path) -> None:
    assert "bimo train" in bimo("info", tmp_path).problem
    assert "no such folder" in bimo("info", tmp_path / "nope").problem
