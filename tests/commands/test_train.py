from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bimo.train import checkpoint, hooks

BUDGET = ("--budget", "6k-tokens")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C in a step."""
    report = hooks.Report.__call__

    def pressing(self: hooks.Report, progress: Any) -> None:
        report(self, progress)
        if progress.step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(hooks.Report, "__call__", pressing)


def test_options_arrive_in_the_configuration(finished_run: Path, text_folder: Path) -> None:
    config = yaml.safe_load((finished_run / "bimo.yaml").read_text(encoding="utf-8"))
    assert config["data"] == [str(text_folder)] and config["budget"] == "6k-tokens" and config["seed"] == 3
    assert config["model"]["width"] == 32 and config["tokenizer"]["vocab_size"] == 320 and config["compile"] is False


def test_several_texts_and_a_configuration_file(bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("seed: 5\nbudget: 1k-tokens\nmodel: {width: 64}\n")
    more = tmp_path / "more.txt"
    more.write_text("the moon said good night " * 30)
    called = bimo("train", config, "--data", text_folder, "--data", more, "--out", tmp_path / "run", *tiny)
    assert called.code == 0, called.err
    written = yaml.safe_load((tmp_path / "run" / "bimo.yaml").read_text())
    assert written["data"] == [str(text_folder), str(more)]
    assert (written["seed"], written["budget"], written["model"]["width"]) == (5, "1k-tokens", 32)


def test_results_are_the_same_for_the_same_seed(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str], finished_run: Path
) -> None:
    bimo("train", "--data", text_folder, *BUDGET, "--out", tmp_path / "again", "--seed", 3, *tiny)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (finished_run, tmp_path / "again")]
    assert weights[0] == weights[1]


def test_interrupted_and_resumed(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        called = bimo("train", "--data", text_folder, *BUDGET, "--out", out, "--seed", 3, *tiny)
    assert called.code == 130 and "step 7" in called.err and called.err.endswith("interrupted\n")
    assert list(out.glob("checkpoints/step-00000007"))
    changed = bimo("train", "--out", out, "--resume", "--seed", 4)
    assert changed.code == 1 and "seed: 3 -> 4" in changed.problem
    assert bimo("train", "--out", out, "--resume").code == 0
    assert (out / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()
    assert "nothing to resume" in bimo("train", "--out", out, "--resume").err


def test_a_damaged_token_shard_is_named_and_made_again(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        bimo("train", "--data", text_folder, *BUDGET, "--out", tmp_path / "run", *tiny)
    shard = tmp_path / "run/checkpoints/tokens/train.bin"
    shard.write_bytes(shard.read_bytes()[:-20])
    called = bimo("train", "--out", tmp_path / "run", "--resume")
    told = called.err.replace("\n", "").replace(" ", "")  # lines are folded where the path of this folder is long
    assert called.code == 0 and "train.binistruncated" in told and "madeagain" in told


def test_disk_full_while_saving(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, out = checkpoint.write_safetensors, tmp_path / "run"
    written: list[Path] = []

    def full_at_the_third(tensors: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 3:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(tensors, path)

    often = [*tiny, "checkpoint_every=5"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_safetensors", full_at_the_third)
        called = bimo("train", "--data", text_folder, *BUDGET, "--out", out, "--seed", 3, *often)
    assert called.code == 1 and "Free some space" in called.problem and "--resume" in called.problem
    assert sorted(path.name for path in out.glob("checkpoints/step-*")) == ["step-00000005", "step-00000010"]
    assert bimo("train", "--out", out, "--resume").code == 0
    assert (out / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()


SHORT = "".join(f"good night, moon {number}\n" for number in range(12))
BAD_TEXT: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty folder": (lambda folder: None, "no readable text"),
    "no readable file": (lambda folder: (folder / "a.pdf").write_bytes(b"%PDF"), ".pdf"),
    "five bytes": (lambda folder: (folder / "a.txt").write_text("hello"), "5 bytes"),
    "binary": (lambda folder: (folder / "a.txt").write_bytes(bytes(range(256)) * 9), "binary"),
    "wrong encoding": (lambda folder: (folder / "a.txt").write_bytes(b"\xff\xff\xff"), "--encoding, such as gb18030"),
    "less than a batch": (lambda folder: (folder / "a.txt").write_text(SHORT), "batch"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_text(bimo: Any, tmp_path: Path, tiny: list[str], case: str) -> None:
    write, part = BAD_TEXT[case]
    folder = tmp_path / "text"
    folder.mkdir()
    write(folder)
    called = bimo("train", "--data", folder, *BUDGET, "--out", tmp_path / "run", *tiny)
    assert called.code == 1 and part in called.problem


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["--budget", "3 minutes"], 2, ["3 minutes", "10m"]),
        (["--budget", "1s"], 1, ["1s", "too short", "--budget"]),
        (["--set", "model.widht=32"], 2, ["model.widht", "'width'"]),
        (["--set", "model.width"], 2, ["model.width", "key=value"]),
        (["--set", "model.layers=two"], 2, ["model.layers", "two"]),
        (["--set", "model.heads=5"], 2, ["model.heads"]),
        (["--device", "mps"], 2, ["mps", "auto"]),
        (["--data", "shakespaere"], 1, ["shakespaere", "shakespeare"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str], words: list[str], code: int, parts: list[str]
) -> None:
    called = bimo("train", "--data", text_folder, "--out", tmp_path / "run", *tiny, *words)
    assert called.code == code, called
    assert all(part in called.problem for part in parts), called.problem


def test_a_failed_start_is_no_obstacle(bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str]) -> None:
    out = tmp_path / "run"
    assert bimo("train", "--data", text_folder, "--out", out, "--budget", "much", *tiny).code == 2
    assert bimo("train", "--data", text_folder, "--out", out, "--budget", "1k-tokens", *tiny).code == 0


def test_bad_configuration_files(bimo: Any, tmp_path: Path, text_folder: Path) -> None:
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text("modle: {width: 32}\n")
    called = bimo("train", unknown, "--data", text_folder, "--out", tmp_path / "run")
    assert called.code == 2 and "'modle'" in called.problem and "'model'" in called.problem
    missing = bimo("train", tmp_path / "missing.yaml")
    assert missing.code == 2 and "missing.yaml" in missing.problem
    text = bimo("train", text_folder)
    assert text.code == 2 and f"--data {text_folder}" in text.problem


def test_nothing_to_train_on(bimo: Any, tmp_path: Path) -> None:
    called = bimo("train", "--out", tmp_path / "run")
    assert called.code == 2 and "--data" in called.problem


def test_what_exists_is_not_touched(bimo: Any, tmp_path: Path, text_folder: Path, run_copy: Path) -> None:
    before = contents(run_copy)
    called = bimo("train", "--data", text_folder, "--out", run_copy)
    assert called.code == 1 and "--resume" in called.problem and contents(run_copy) == before
    texts = contents(text_folder)
    for words in ((), ("--resume",)):
        called = bimo("train", "--data", text_folder, "--out", text_folder, *words)
        assert called.code == 1 and str(text_folder) in called.problem and contents(text_folder) == texts
    file = text_folder / "00.txt"
    assert bimo("train", "--data", text_folder, "--out", file).code == 1
    assert contents(text_folder) == texts
