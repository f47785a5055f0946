"""Labelled sets from a Debian system's registry: help of LibreOffice, descriptions of packages, their translations."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bimo.text.labelled_rows import Rows, once, split_of

PARAGRAPH = re.compile(r'<(p|h[1-6])\b[^>]*\bid="((?:par|hd)_id\w+)"[^>]*>(.*?)</\1>', re.DOTALL)
HIDDEN = re.compile(r'<span hidden="true".*?</span>', re.DOTALL)
TAG = re.compile(r"<[^>]+>")
HAN, LETTER = re.compile("[\u4e00-\u9fff]"), re.compile(r"[^\W\d_]")
FEWEST_WORDS = 3


def _is_pair(text: str, other: str, language: str) -> bool:
    """Whether it is worth learning from: more than a name or two, and translated."""
    letters = HAN if language == "zh" else LETTER
    return len(text.split()) >= FEWEST_WORDS and letters.search(other) is not None and text != other


def office_help(language: str) -> Callable[[Sequence[Path]], Rows]:
    """Paragraphs with the same name in the same page of both languages; a page is on one side of the split."""

    def parse(paths: Sequence[Path]) -> Rows:
        english, others = (dict(_pages(path)) for path in paths)

        def rows() -> Rows:
            for page in sorted(english.keys() & others.keys()):
                theirs = dict(_paragraphs(others[page]))
                for name, text in _paragraphs(english[page]):
                    other = theirs.get(name, "")
                    if _is_pair(text, other, language):
                        yield split_of(page), {"en": text, language: other, "document": page}

        return once(rows(), lambda row: (row["en"], row[language]))

    return parse


def _paragraphs(page: str) -> Iterator[tuple[str, str]]:
    import html

    for _, name, inner in PARAGRAPH.findall(page):
        yield name, " ".join(html.unescape(TAG.sub("", HIDDEN.sub("", inner))).split())


def _pages(package: Path) -> Iterator[tuple[str, str]]:
    """The HTML pages of a Debian package, by their path below the language."""
    with tarfile.open(fileobj=io.BytesIO(_data_of(package))) as tar:
        for member in tar:
            _, found, name = member.name.partition("/libreoffice/help/")
            file = tar.extractfile(member) if found and name.endswith(".html") and member.isfile() else None
            if file is not None:
                yield name.partition("/")[2], file.read().decode("utf-8", "replace")


STANZA = r"^Package: (\S+)\nDescription-md5: (\w+)\nDescription-{}: (.+)\n((?: .*\n?)+)"
# Where a line of Chinese was broken: no space belongs there.
BROKEN = re.compile("(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
FEWEST_CHARACTERS = 80  # of a description that can be summed up


def _descriptions(index: Path, language: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """(name, hash of the English original, synopsis, paragraphs) of packages; lists keep their lines."""
    for name, original, synopsis, body in re.findall(STANZA.format(language), index.read_text("utf-8"), re.MULTILINE):
        lines = [line[1:].rstrip() for line in body.splitlines()]
        paragraphs = "\n".join("" if line == "." else line for line in lines).split("\n\n")
        paragraphs = [BROKEN.sub("", " ".join(one.split())) if "\n " not in one else one for one in paragraphs]
        yield name, original, synopsis.strip(), paragraphs


def _beginning(paragraphs: Sequence[str]) -> str:
    """What packages from one source have in common."""
    return " ".join(paragraphs[0].split())


def package_descriptions(paths: Sequence[Path]) -> Rows:
    """Descriptions with their synopsis; those that begin alike, as of packages from one source, are on one side."""

    def rows() -> Rows:
        for name, _, synopsis, paragraphs in _descriptions(paths[0], "en"):
            text = "\n\n".join(paragraphs).strip()
            if len(text) >= FEWEST_CHARACTERS:
                yield split_of(_beginning(paragraphs)), {"package": name, "description": text, "synopsis": synopsis}

    return once(rows(), lambda row: row["description"])


def translated_descriptions(language: str, index: str) -> Callable[[Sequence[Path]], Rows]:
    """Synopses and paragraphs of package descriptions; the split is that of the descriptions alone.

    Args:
        index: the language as the index of the translations calls it.
    """

    def parse(paths: Sequence[Path]) -> Rows:
        theirs = {original: [synopsis, *rest] for _, original, synopsis, rest in _descriptions(paths[1], index)}

        def rows() -> Rows:
            for name, original, synopsis, paragraphs in _descriptions(paths[0], "en"):
                others = theirs.get(original, ())
                if len(others) != 1 + len(paragraphs):
                    continue
                for text, other in zip((synopsis, *paragraphs), others, strict=True):
                    if "\n" not in text + other and _is_pair(text, other, language):
                        yield split_of(_beginning(paragraphs)), {"en": text, language: other, "document": name}

        return once(rows(), lambda row: row["en"])

    return parse


def _data_of(package: Path) -> bytes:
    """The files of a Debian package as a tar archive: the member ``data.tar.xz`` of an ``ar`` archive."""
    content = package.read_bytes()
    place = len(b"!<arch>\n")
    while place + 60 <= len(content):
        header = content[place : place + 60]
        size = int(header[48:58])
        if header[:16].strip().rstrip(b"/") == b"data.tar.xz":
            return lzma.decompress(content[place + 60 : place + 60 + size])
        place += 60 + size + size % 2
    raise ValueError(f"{package.name} holds no data.tar.xz")
