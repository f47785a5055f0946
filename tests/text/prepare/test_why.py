"""What the ledger answers about files, documents and texts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bimo.errors import DataError
from bimo.text.prepare import why
from bimo.text.prepare.ledger import Row
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.why import Answer, find, outcome, story
from bimo.text.source import open_source


def ids(answer: Answer) -> list[str]:
    return [row.id for row in answer.rows]


@pytest.mark.parametrize("name", ["notes/spam.txt", "./notes/spam.txt", "spam.txt", "/elsewhere/notes/spam.txt"])
def test_a_file_by_its_name(prepared_dirt: Path, name: str) -> None:
    answer = find(prepared_dirt, name)
    assert answer.how == "name" and ids(answer) == ["notes/spam.txt"]
    assert outcome(answer.rows[0]).startswith("left out by quality: ")


def test_a_document_by_its_id(prepared_dirt: Path) -> None:
    answer = find(prepared_dirt, "many.jsonl:5")
    assert ids(answer) == ["many.jsonl:5"] and outcome(answer.rows[0]) == "kept" and answer.totals is None
    told = dict(answer.story(answer.rows[0]))
    assert "1 e-mail address, 1 phone number" in told["pii"] and told["pii"].startswith("took away")
    assert told["kept"] == f"{answer.rows[0].bytes_out:,} of {answer.rows[0].bytes_in:,} bytes"


def test_a_file_of_many_documents_is_summed(prepared_dirt: Path) -> None:
    answer = find(prepared_dirt, "many.jsonl")
    assert answer.documents == 19 and len(answer.rows) == why.MOST_ROWS and answer.totals
    assert answer.totals.documents == 19 and answer.totals.balanced
    assert answer.totals.by_reason["read", "empty"][0] == answer.totals.by_reason["read", "not JSON"][0] == 1


@pytest.mark.parametrize("name", ["notes", "./notes/"])
def test_a_folder_is_summed(prepared_dirt: Path, dirt: Path, name: str) -> None:
    answer = find(prepared_dirt, name)
    assert answer.documents == len(list((dirt / "notes").iterdir())) == 5 and answer.totals
    assert {row.file.partition("/")[0] for row in answer.rows} == {"notes"}


def test_the_copy_kept_in_its_place_is_named(prepared_dirt: Path) -> None:
    answer = find(prepared_dirt, "many.jsonl:13")
    (row,) = answer.rows
    assert row.step == "duplicates" and answer.instead[row.copy_of].kept
    step, said = answer.story(row)[-1]
    assert step == "" and said.startswith(f"kept in its place: {row.copy_of}, ")


def test_a_file_that_was_not_read(prepared_dirt: Path) -> None:
    answer = find(prepared_dirt, "notes/picture.txt")
    assert outcome(answer.rows[0]) == "not read: binary file"
    assert answer.story(answer.rows[0]) == [("read", "could not be read: binary file")]
    assert outcome(find(prepared_dirt, "what.xyz").rows[0]) == "not read: unknown suffix .xyz"


def test_a_whole_text(prepared_dirt: Path, dirt: Path) -> None:
    text = (dirt / "notes" / "one.md").read_text(encoding="utf-8")
    for form in (text, text.rstrip("\n"), text.replace("\n", "\r\n")):
        answer = find(prepared_dirt, form)
        assert answer.how == "text" and set(ids(answer)) == {"notes/one.md", "notes/copy.md"}


def test_a_file_that_has_another_name_now(prepared_dirt: Path, dirt: Path, tmp_path: Path) -> None:
    shutil.copy(dirt / "notes" / "spam.txt", tmp_path / "renamed.txt")
    answer = find(prepared_dirt, str(tmp_path / "renamed.txt"))
    assert answer.how == "file" and ids(answer) == ["notes/spam.txt"]


@pytest.mark.parametrize(
    "piece", ["walnut tree beside", "walnut\n  tree beside", "城里的书坊刻了一部新书", "书坊\n刻了一部新书，\n读书人"]
)
def test_a_piece_of_what_was_kept(prepared_dirt: Path, piece: str) -> None:
    answer = find(prepared_dirt, piece)
    assert answer.how == "kept" and answer.documents > 3


def test_the_shards_are_searched_where_the_parts_are_gone(prepared_dirt: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    with_duplicates = find(out, "walnut tree beside").documents
    shutil.rmtree(out / "parts")
    answer = find(out, "walnut tree beside")
    assert answer.how == "kept" and answer.documents == with_duplicates - 1 and all(row.kept for row in answer.rows)


def test_the_search_ends_when_there_is_enough(
    prepared_dirt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    (part,) = (out / "parts").iterdir()
    shutil.copytree(part, out / "parts" / "another")
    monkeypatch.setattr(why, "MOST_FOUND", 2)
    answer = find(out, "walnut tree beside")
    assert answer.documents == 2 and answer.more
    answer = find(out, "buy now!")
    assert answer.documents == 1 and not answer.more


def test_a_piece_that_only_the_source_files_hold(prepared_dirt: Path) -> None:
    answer = find(prepared_dirt, "buy now! buy now!")
    assert (
        answer.how == "source" and ids(answer) == ["notes/spam.txt"] and answer.remarks == ("not in the cleaned text",)
    )
    assert find(prepared_dirt, "jane.doe@example.org").rows[0].id == "many.jsonl:5"


def test_source_files_that_changed_or_are_gone(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.txt").write_text("The sea was calm, and the gulls were silent over it.", encoding="utf-8")
    (source / "b.txt").write_text("x y z", encoding="utf-8")
    prepare(open_source(source), out, workers=1)
    (source / "b.txt").write_text("x y z, and a comet", encoding="utf-8")
    (source / "c.txt").write_text("a later planet", encoding="utf-8")
    assert "b.txt has changed since it was prepared" in find(out, "and a comet").remarks
    with pytest.raises(DataError, match=r"c\.txt holds it, but was not there"):
        find(out, "a later planet")
    shutil.rmtree(source)
    with pytest.raises(DataError, match="not there any more"):
        find(out, "and a comet")


@pytest.mark.parametrize("typo", ["notes/spam.text", "nots/spam.txt", "notes/s"])
def test_a_near_miss_names_what_may_be_meant(prepared_dirt: Path, typo: str) -> None:
    with pytest.raises(DataError, match=r"Did you mean 'notes/"):
        find(prepared_dirt, typo)


def test_nothing_like_it(prepared_dirt: Path) -> None:
    with pytest.raises(DataError, match="knows nothing of 'zebra crossing ahead'.*not in the source files"):
        find(prepared_dirt, "zebra crossing ahead")
    with pytest.raises(DataError, match="nothing to look for"):
        find(prepared_dirt, " \n")


def test_text_that_json_writes_in_another_way(tmp_path: Path) -> None:
    text = 'He said "no\\way"\tand left; the others stayed where they were until the end.\n\n再见，说完他就走了。'
    (tmp_path / "in.txt").write_text(text, encoding="utf-8")
    prepare(open_source(tmp_path / "in.txt"), tmp_path / "out", workers=1)
    for piece in ('said "no\\way" and', "the end. 再见", "no\\way"):
        assert find(tmp_path / "out", piece).how == "kept"
    with pytest.raises(DataError):
        find(tmp_path / "out", "in.txtx y")  # the id and the source of a line are no text


def test_a_story_says_where_in_its_file_a_document_begins() -> None:
    assert story(Row("a", "a", 1, bytes_in=107, offset=1_190), ())[0] == ("read", "prose, 107 bytes from byte 1,190 on")
    assert story(Row("a", "a", 0, bytes_in=107), ())[0] == ("read", "prose, 107 bytes")


def test_a_story_is_in_order_and_in_words() -> None:
    row = Row("a", "a", 0, kind="web", bytes_in=1000, language="en")
    row.changes = [("normalise", 1), ("boilerplate", -7), ("pii", 0)]
    row.notes = ("decoded as gb18030", "boilerplate: 2 lines removed", "pii: 1 phone number", "normalise: tidy")
    row.drop("repetition", "repeated lines", "max_lines: 0.5, expected at most 0.3")
    assert story(row, ("normalise", "boilerplate", "quality", "pii", "repetition")) == [
        ("read", "web, 1,000 bytes, decoded as gb18030, en"),
        ("normalise", "took away 1 byte: tidy"),
        ("boilerplate", "added 7 bytes: 2 lines removed"),
        ("pii", "changed it, as many bytes as before: 1 phone number"),
        ("repetition", "left it out: repeated lines (max_lines: 0.5, expected at most 0.3)"),
    ]
    row = Row("a", "a", 0, bytes_in=5, bytes_out=5, kept=True, copies=3, split="test")
    assert story(row, ())[-1] == ("kept", "5 of 5 bytes, written 3 times, for test")
