"""The commands that deal with text alone: corpora and prepare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bimo.errors import DataError
from bimo.text import corpora, labelled
from bimo.text.source import open_source


def test_corpora_list(bimo: Any) -> None:
    texts, sets = (part.splitlines() for part in bimo("corpora", "list").out.split("\n\n"))
    for lines, known in ((texts[1:], corpora.CORPORA), (sets[2:], labelled.SETS)):
        assert [line.split()[0] for line in lines] == list(known)
        assert all(one.licence in line for one, line in zip(known.values(), lines, strict=True))
    measuring = [line.split()[0] for line in sets[2:] if " measure " in line and "learn, measure" not in line]
    assert measuring == [name for name, one in labelled.SETS.items() if one.test_only]


def test_corpora_get(bimo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "fetch", lambda name, progress: tmp_path / name)
    called = bimo("corpora", "get", "sanguo")
    assert called.out == f"{tmp_path / 'sanguo'}\n" and "fetching sanguo" in called.err
    monkeypatch.setattr(labelled, "fetch", lambda name, progress: tmp_path / "set" / name)
    assert bimo("corpora", "get", "sarcasm").out == f"{tmp_path / 'set' / 'sarcasm'}\n"


def test_corpora_get_fails(bimo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path))  # other tests may have fetched it
    unknown = bimo("corpora", "get", "sangou")
    assert unknown.code == 1 and "'sanguo'" in unknown.problem

    def offline(*_: Any) -> None:
        raise DataError("There is no network.")

    monkeypatch.setattr(corpora, "_download", offline)
    assert "no network" in bimo("corpora", "get", "sanguo").problem


def test_prepare(bimo: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "text", tmp_path / "out"
    folder.mkdir()
    (folder / "a.csv").write_text("review,stars\ngood night,3\n曹操,5\n", encoding="utf-8")
    (folder / "b.txt").write_bytes("却说曹操".encode("gb18030"))
    (folder / "c.pdf").write_bytes(b"%PDF")
    words = ("prepare", folder, "--out", out, "--raw", "--text-column", "review", "--encoding", "gb18030")
    (folder / "a.csv").write_bytes((folder / "a.csv").read_text(encoding="utf-8").encode("gb18030"))
    called = bimo(*words)
    assert called.code == 0 and "c.pdf" in called.out
    assert [document.text for document in open_source(out)] == ["good night", "曹操", "却说曹操"]
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data_hash"] in called.out and "nothing was done" not in called.err
    assert "nothing was done" in bimo(*words).err


def test_prepare_reads_standard_input(bimo: Any, tmp_path: Path) -> None:
    records, out = '{"title": "夜", "body": "good night"}\n{"title": "曹操"}\n'.encode(), tmp_path / "out"
    words = ("prepare", "-", "--out", out, "--raw", "--template", r"{title}\n{body}")
    called = bimo(*words, stdin=records)
    assert called.code == 0 and "stdin.jsonl: no column 'body'" in called.out
    assert [document.text for document in open_source(out)] == ["夜\ngood night"]
    assert "nothing was done" in bimo(*words, stdin=records).err
    assert bimo(*words, stdin=records.replace("夜".encode(), "曰".encode())).code == 0
    assert [document.text for document in open_source(out)] == ["曰\ngood night"]


def test_prepare_lists_what_no_reader_takes(bimo: Any, tmp_path: Path, text_folder: Path) -> None:
    for name in ("a.png", "b.png", "c.mp3"):
        (text_folder / name).write_bytes(b"")
    called = bimo("prepare", text_folder, "--out", tmp_path / "out")
    assert "unknown suffix .png (2 files, such as a.png)" in called.out and "c.mp3: unknown suffix .mp3" in called.out
    strict = bimo("prepare", text_folder, "--out", tmp_path / "strict", "--strict")
    assert strict.code == 1 and "a.png: unknown suffix .png; b.png" in strict.problem
    assert not (tmp_path / "strict").exists()


def test_prepare_refuses(bimo: Any, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("good night")
    assert bimo("prepare", "--out", tmp_path / "out").code == 2
    assert bimo("prepare", text).code == 2
    used = bimo("prepare", text, "--out", tmp_path)
    assert used.code == 1 and str(tmp_path) in used.problem and text.read_text() == "good night"
    unknown = bimo("prepare", text, "--out", tmp_path / "out", "--encoding", "utf-9")
    assert unknown.code == 2 and "utf-9" in unknown.problem


def test_damaged_prepared_text(bimo: Any, tmp_path: Path, text_folder: Path) -> None:
    bimo("prepare", text_folder, "--out", tmp_path / "out")
    (shard,) = (tmp_path / "out").glob("*.zst")
    shard.write_bytes(shard.read_bytes()[:-9])
    called = bimo("train", "--data", tmp_path / "out", "--out", tmp_path / "run", "--budget", "1k-tokens")
    assert called.code == 1 and shard.name in called.problem


def test_one_long_line(bimo: Any, tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_bytes("good night 曹操 ".encode() * 500_000)  # 9 MB without a line end
    called = bimo("prepare", tmp_path / "line.txt", "--raw", "--out", tmp_path / "out")
    documents = list(open_source(tmp_path / "out"))
    assert called.code == 0 and len(documents) > 1
    assert sum(len(document.text) for document in documents) == 14 * 500_000


def test_prepare_raw_does_what_other_options_ask_for(bimo: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "en.txt").write_text("The king wrote a letter to jane.doe@gmail.com and said that he was well.")
    (tmp_path / "in" / "zh.txt").write_text("却说曹操引兵而来，不知道明天会怎样。", encoding="utf-8")
    called = bimo("prepare", tmp_path / "in", "--out", tmp_path / "out", "--raw", "--languages", "en, fr")
    assert called.code == 0
    (document,) = open_source(tmp_path / "out")
    assert document.id == "en.txt" and "jane.doe@gmail.com" in document.text
    assert "dropped   1 language: another language" in called.out


def test_prepare_refuses_before_it_works(bimo: Any, tmp_path: Path, text_folder: Path) -> None:
    out = tmp_path / "out"
    problem = bimo("prepare", text_folder, "--out", out, "--mix", "wikki=2").problem
    assert "no source: 'wikki'" in problem and problem.endswith(f"Known: {text_folder.name}.")
    shares = ("--split-by", "document", "--set", "arrangement.test=0.9")
    assert "at most 0.5" in bimo("prepare", text_folder, "--out", out, *shares).problem
    assert "1 or more" in bimo("prepare", text_folder, "--out", out, "--workers", "0").problem
    assert not (out / "parts").exists()


def test_prepare_takes_a_file_of_settings(bimo: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Hm.")
    (tmp_path / "r.yaml").write_text("clean:\n  quality:\n    on: false\n")
    assert "too few words" in bimo("prepare", tmp_path / "in.txt", "--out", tmp_path / "one").problem
    called = bimo("prepare", tmp_path / "in.txt", "--out", tmp_path / "two", "--config", tmp_path / "r.yaml")
    assert called.code == 0 and "written   1 document, 3 bytes" in called.out


def test_names_of_files_cannot_write_to_a_terminal(bimo: Any, tmp_path: Path, text_folder: Path) -> None:
    (text_folder / "\x1b[31mred.png").write_bytes(b"")
    called = bimo("prepare", text_folder, "--out", tmp_path / "out")
    assert r"\x1b[31mred.png" in called.out and "\x1b" not in called.out
    problem = bimo("prepare", text_folder, "--out", tmp_path / "out2", "--strict").problem
    assert r"\x1b[31mred.png" in problem and "\x1b" not in problem
