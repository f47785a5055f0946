"""``bimo ledger``: what is printed, as JSON and as a page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from bimo.text import store


def test_the_funnel_and_the_reasons(bimo: Any, prepared_dirt: Path) -> None:
    called = bimo("ledger", prepared_dirt)
    assert called.code == 0
    manifest = store.read_manifest(prepared_dirt)
    header, *lines = called.out.splitlines()
    assert header.split()[:3] == ["step", "documents", "bytes"]
    steps = [line.split()[0] for line in lines[: lines.index("")]]
    assert steps[:2] == ["found", "read"] and "normalise" in steps and steps[-2:] == ["duplicates", "kept"]
    kept = lines[lines.index("") - 1].split()
    assert kept[1:3] == [f"{manifest['documents']:,}", f"{manifest['bytes']:,}"]
    balance = next(line for line in lines if line.endswith("every byte accounted for"))
    came, *parts = [int(number.replace(",", "")) for number in re.findall(r"[\d,]+(?= )", balance)]
    assert came == sum(parts) and parts[0] == manifest["bytes"]
    assert "  quality: too few words: " in called.out and "notes/picture.txt" in called.out
    assert "\x1b" not in called.out


def test_a_mixture_and_a_split_are_shown(bimo: Any, dirt: Path, tmp_path: Path) -> None:
    from bimo.text.prepare.prepare import prepare
    from bimo.text.prepare.recipe import Arrangement, Duplicates, Recipe
    from bimo.text.source import open_source

    recipe = Recipe(
        duplicates=Duplicates(exact=False, near=False),
        arrangement=Arrangement(
            split_by="document", validation=0.2, test=0.2, mix=("dirt=2.5",), most_epochs=("dirt=3",)
        ),
    )
    folder = Path(shutil.copytree(dirt, tmp_path / "dirt"))
    prepare(open_source(folder), tmp_path / "out", recipe, workers=1)
    out = bimo("ledger", tmp_path / "out").out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    kept, written = (int(lines[name][0]) for name in ("kept", "written"))
    assert written > kept and kept == sum(int(lines[side][0]) for side in ("train", "validation", "test"))
    assert written == store.read_manifest(tmp_path / "out")["documents"]


def test_why(bimo: Any, prepared_dirt: Path) -> None:
    called = bimo("ledger", prepared_dirt, "--why", "many.jsonl:13")
    assert called.code == 0 and "many.jsonl:13: left out by duplicates" in called.out
    assert "kept in its place: many.jsonl:" in called.out
    called = bimo("ledger", prepared_dirt, "--why", "many.jsonl")
    assert "Together: " in called.out and "every byte accounted for" in called.out and "and 9 more" in called.out
    called = bimo("ledger", prepared_dirt, "--why", "buy now! buy now!")
    assert "by reading the source files again" in called.out and "Note: not in the cleaned text." in called.out
    missed = bimo("ledger", prepared_dirt, "--why", "notes/spam.text")
    assert missed.code == 1 and "Did you mean 'notes/spam.txt'" in missed.problem


def test_json(bimo: Any, prepared_dirt: Path) -> None:
    found = json.loads(bimo("ledger", prepared_dirt, "--json").out)
    assert found["balanced"] and found["funnel"][-1]["bytes"] == found["totals"]["bytes_out"]
    assert sum(one["after"] for one in found["lengths"]) == found["totals"]["kept"]
    assert found["duplicates"]["largest"][0]["members"][0]["kept"]
    called = bimo("ledger", prepared_dirt, "--why", "notes/one.md", "--json")
    (row,) = json.loads(called.out)["rows"]
    assert row["id"] == "notes/one.md" and row["story"][0]["step"] == "read"


def test_the_page(bimo: Any, prepared_dirt: Path, tmp_path: Path) -> None:
    called = bimo("ledger", prepared_dirt, "--html", tmp_path / "page.html")
    assert called.out == f"{tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    assert bimo("ledger", out, "--html").out == f"{out / 'ledger.html'}\n" and (out / "ledger.html").is_file()
    refused = bimo("ledger", out, "--html", tmp_path / "page.html" / "x.html")
    assert refused.code == 1 and "cannot be written" in refused.problem


def test_what_is_refused(bimo: Any, prepared_dirt: Path, tmp_path: Path, text_folder: Path) -> None:
    assert "has no ledger" in bimo("ledger", text_folder).problem
    assert "has no ledger" in bimo("ledger", tmp_path / "nowhere").problem
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    (out / "ledger.parquet").unlink()
    old = bimo("ledger", out)
    assert old.code == 1 and "older bimo" in old.problem
    both = bimo("ledger", prepared_dirt, "--why", "x", "--html")
    assert both.code == 2 and "do not go together" in both.problem
    assert bimo("ledger", prepared_dirt, "--html", "a", "b").code == 2
    assert bimo("ledger").code == 2
