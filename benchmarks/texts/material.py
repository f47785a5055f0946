"""The texts that speed and memory are measured on, written once to data/bench-text.

Plain English: corpora that bimo knows, a dictionary and the kernel's documentation, about 100 MB; what is wanted beyond
that are further documents of the same sentences in a seeded random order, of all texts together, so that no document
repeats another, not nearly either. HTML: the documentation of Python, PostgreSQL and the kernel, as Debian ships it.

    python -m benchmarks.texts.material RESULT english MEGABYTES
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.texts.cells import PART_BYTES, WORK
from benchmarks.texts.packages import debian
from bimo import files
from bimo.text.source import open_source

CORPORA = ("wiki-en", "boolq-passages", "sotu", "gutenberg-mix", "shakespeare")
HTML_PACKAGES = ("python3.11-doc", "postgresql-doc-15", "linux-doc-6.1")
DOCUMENT_CHARACTERS = 20_000  # about, of the pieces of whole books
ENTRIES_CHARACTERS = 3_000  # about, of dictionary entries that are one document
SENTENCES = (8, 40)  # of a document of shuffled ones
PARAGRAPH = 5  # sentences
FILES_IN_A_FOLDER = 1_000
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(A-Z])")


def pieces(text: str, size: int) -> Iterator[str]:
    """A text in pieces of whole paragraphs, about ``size`` characters each."""
    piece: list[str] = []
    length = 0
    for paragraph in re.split(r"\n\s*\n", text):
        if piece and length + len(paragraph) > size:
            yield "\n\n".join(piece)
            piece, length = [], 0
        piece.append(paragraph)
        length += len(paragraph)
    if piece:
        yield "\n\n".join(piece)


def real() -> Iterator[str]:
    """English documents as they are, the corpora first; packages are only fetched when these are used up."""
    for name in CORPORA:
        for document in open_source(name):
            yield from pieces(document.text, DOCUMENT_CHARACTERS)
    with gzip.open(debian("dict-gcide") / "usr/share/dictd/gcide.dict.dz") as file:
        yield from pieces(file.read().decode("utf-8", "replace"), ENTRIES_CHARACTERS)
    for path in sorted((debian("linux-doc-6.1") / "usr/share/doc").rglob("*")):
        plain = path.name.removesuffix(".gz").endswith((".rst", ".txt")) and "translations" not in path.parts
        if plain and path.is_file():
            content = path.read_bytes()
            yield (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8", "replace")


def shuffled(documents: Iterator[str], seed: int) -> Iterator[str]:
    """Endless documents of the sentences of others, all of them used in one random order, then in the next."""
    sentences = [sentence.strip() for text in documents for sentence in SENTENCE_END.split(text.replace("\n", " "))]
    sentences = [sentence for sentence in sentences if len(sentence) > 20]
    while True:
        rng = random.Random(seed)
        rng.shuffle(sentences)
        at = 0
        while at < len(sentences):
            some = sentences[at : at + rng.randint(*SENTENCES)]
            at += len(some)
            yield "\n\n".join(" ".join(some[i : i + PARAGRAPH]) for i in range(0, len(some), PARAGRAPH))
        seed += 1


def english(megabytes: float) -> Iterator[str]:
    """So much plain English, the real documents first."""
    left = megabytes * 1e6
    for documents in (real, lambda: shuffled(real(), seed=1)):
        for text in documents():
            left -= len(text.encode("utf-8"))
            yield text
            if left < 0:
                return


def write_english(megabytes: float, folder: Path) -> dict[str, int]:
    """The same documents twice: ``jsonl/``, files of about 16 MB, and ``files/``, one text file for each."""
    count = size = 0
    lines, number, written = None, 0, 0
    (folder / "jsonl").mkdir()
    for text in english(megabytes):
        if lines is None or written > PART_BYTES:
            if lines:
                lines.close()
            lines, number, written = (folder / "jsonl" / f"{number:03d}.jsonl").open("w"), number + 1, 0
        written += lines.write(json.dumps({"id": str(count), "text": text}) + "\n")
        path = folder / "files" / f"{count // FILES_IN_A_FOLDER:03d}" / f"{count:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        count, size = count + 1, size + len(text.encode("utf-8"))
    if lines:
        lines.close()
    return {"documents": count, "bytes": size}


def write_html(megabytes: float, folder: Path) -> dict[str, int]:
    """Pages, about ``megabytes`` of them; less where the packages have less."""
    count = size = 0
    for package in HTML_PACKAGES:
        for path in sorted((debian(package) / "usr/share").rglob("*.html")):
            if not path.is_file() or path.is_symlink():
                continue
            target = folder / package / f"{count // FILES_IN_A_FOLDER:03d}" / f"{count:06d}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            count, size = count + 1, size + path.stat().st_size
            if size > megabytes * 1e6:
                return {"documents": count, "bytes": size}
    return {"documents": count, "bytes": size}


def write_synthetic(gigabytes: float, folder: Path) -> dict[str, int]:
    """One file of JSON lines of shuffled sentences, of any size; the corpora that bimo knows are enough for it."""
    corpora = (document.text for name in CORPORA for document in open_source(name))
    count = size = 0
    with (folder / "synthetic.jsonl").open("w") as file:
        for text in shuffled(corpora, seed=0):
            size += file.write(json.dumps({"id": str(count), "text": text}) + "\n")
            count += 1
            if size > gigabytes * 1e9:
                break
    return {"documents": count, "bytes": size}


WRITERS: dict[str, Callable[[float, Path], dict[str, int]]] = {
    "english": write_english,
    "html": write_html,
    "synthetic": write_synthetic,
}


def make(kind: str, size: float) -> dict[str, object]:
    """Make a folder of text, unless it is there; returns what is in it and where."""
    folder = WORK / f"{kind}-{size:g}"
    if not folder.is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{kind}.", dir=WORK))
        try:
            (temporary / "text").mkdir()
            files.write_json(temporary / "facts.json", WRITERS[kind](size, temporary / "text"))
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return {"folder": str(folder / "text"), **files.read_json(folder / "facts.json")}


if __name__ == "__main__":
    files.write_json(Path(sys.argv[1]), make(sys.argv[2], float(sys.argv[3])))
