"""What is learned before the work, and what the user is told of it."""

import json

import pytest

from bimo.config import from_mapping
from bimo.errors import ConfigError
from bimo.text.clean import language
from bimo.text.prepare import prepare as module
from bimo.text.prepare.ledger import LEDGER, read_rows
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.recipe import Recipe
from bimo.text.source import open_source

OFF = {"on": False}


def test_an_evaluation_set_that_changed_is_looked_for_again(tmp_path, texts, loose):
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.txt").write_text(texts.english(40))
    held = tmp_path / "held.txt"
    recipe = from_mapping(Recipe, {"clean": {"decontaminate": {"against": [str(held)]}, "quality": OFF}}, where="test")
    removed = []
    for number in range(2):
        held.write_text((tmp_path / "in" / f"{number}.txt").read_text()[500:800] + " " * number)
        assert not prepare(open_source(tmp_path / "in"), tmp_path / "out", recipe)["unchanged"]
        removed.append([row.id for row in read_rows(tmp_path / "out" / LEDGER) if row.bytes_in != row.bytes_out])
    assert removed == [["0.txt"], ["1.txt"]]
    assert prepare(open_source(tmp_path / "in"), tmp_path / "out", recipe)["unchanged"]


def test_what_must_be_known_is_told_before_the_work(tmp_path, texts, monkeypatch):
    (tmp_path / "in.txt").write_text(texts.english(40))
    (tmp_path / "held.jsonl").write_text(json.dumps({"text": texts.english(40)}) + '\n{"text": "a short one"}\n')
    against = {"clean": {"decontaminate": {"against": [str(tmp_path / "held.jsonl")]}}}
    monkeypatch.setattr(language, "_classifier", lambda: None)
    told = []
    recipe = from_mapping(Recipe, against, where="test")
    prepare(
        open_source(tmp_path / "in.txt"), tmp_path / "out", recipe, watch=lambda done: told.append(""), tell=told.append
    )
    assert told[0] == language.FALLBACK
    assert told[1].startswith("1 of 2 evaluation texts are not looked for")
    assert not any(told[2:])


def test_a_split_that_is_lost_is_told(folder, tmp_path, loose):
    split = from_mapping(Recipe, {"clean": {"quality": OFF}, "arrangement": {"split_by": "document"}}, where="test")
    told = []
    prepare(open_source(folder), tmp_path / "split", split, tell=told.append)
    assert module.SPLIT_LOST not in told
    prepare(open_source(tmp_path / "split"), tmp_path / "again", loose, tell=told.append)
    assert told[-1] == module.SPLIT_LOST


def test_standard_input_is_no_reference(folder, tmp_path):
    recipe = from_mapping(Recipe, {"clean": {"decontaminate": {"against": ["-"]}}}, where="test")
    with pytest.raises(ConfigError, match="not learned from"):
        prepare(open_source(folder), tmp_path / "out", recipe)
