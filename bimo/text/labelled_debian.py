"""Labelled sets from a Debian system's registry: help of LibreOffice, descriptions of packages, their translations."""

from __future__ import annotations

import io
import lzma
import re
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bimo.text.labelled_rows import Rows, once, split_of

PARAGRAPH = re.compile(r'<(p|h[1-6])\b[^>]*\bid="((?:par|hd)_id\w+)"[^>]*>(.*?)</\1>', re.DOTALL)
HIDDEN = re.compile(r'<span hidden="true".*?</span>', re.DOTALL)
TAG = re.compile(r"<[^>]+>")
# The letter that chooses a button, as in "Re_lative to", "相对于(_L)".
ACCESS_KEY = re.compile(r"[(（]_\w[)）]|[_~](?=\w)")
HAN, LETTER = re.compile("[\u4e00-\u9fff]"), re.compile(r"[^\W\d_]")
FEWEST_WORDS = 3


def _is_pair(text: str, other: str, language: str) -> bool:
    """Whether it is worth learning from: more than a name or two, and translated."""
    return len(text.split()) >= FEWEST_WORDS and is_translated(text, other, language)


def is_translated(text: str, other: str, language: str) -> bool:
    """Whether the other text is in its language, and not the same."""
    return (HAN if language == "zh" else LETTER).search(other) is not None and text != other


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
    for name, content in _members(package, "/libreoffice/help/", ".html"):
        yield name.partition("/")[2], content.decode("utf-8", "replace")


def _members(package: Path, folder: str, ending: str) -> Iterator[tuple[str, bytes]]:
    """The files of a Debian package below a folder, by their path there."""
    with tarfile.open(fileobj=io.BytesIO(_data_of(package))) as tar:
        for member in tar:
            _, found, name = member.name.partition(folder)
            file = tar.extractfile(member) if found and name.endswith(ending) and member.isfile() else None
            if file is not None:
                yield name, file.read()


def office_words(language: str) -> Callable[[Sequence[Path]], Rows]:
    """Words of the menus and dialogs, without their access keys; a dialog is on one side of the split.

    Longer help inside the dialogs is left out: its sentences stand in the pages of :func:`office_help` too.
    """

    def parse(paths: Sequence[Path]) -> Rows:
        def rows() -> Rows:
            for name, context, text, other in messages(paths[0], "/LC_MESSAGES/"):
                text, other = (ACCESS_KEY.sub("", one).strip() for one in (text, other))
                if "extended_tip" not in context and is_translated(text, other, language):
                    place = f"{name}/{context.partition('|')[0]}"
                    yield split_of(place), {"en": text, language: other, "document": place}

        return once(rows(), lambda row: (row["en"], row[language]))

    return parse


def messages(package: Path, folder: str) -> Iterator[tuple[str, str, str, str]]:
    """(catalogue, context, text, translation) of the messages of one line in a folder of a Debian package."""
    for name, content in _members(package, folder, ".mo"):
        for context, text, other in _catalogue(content):
            text, other = text.strip(), other.strip()
            if "\n" not in text + other:
                yield name.removesuffix(".mo"), context, text, other


def _catalogue(content: bytes) -> Iterator[tuple[str, str, str]]:
    """(context, text, translation) of a binary message catalogue of GNU gettext; of plurals the singular."""
    magic, _, count, *tables = struct.unpack_from("<5I", content)
    if magic != 0x950412DE:
        raise ValueError("not a message catalogue")
    for number in range(count):
        text, other = (
            content[place : place + size].decode("utf-8").partition("\0")[0]
            for size, place in (struct.unpack_from("<2I", content, table + 8 * number) for table in tables)
        )
        if text:  # without one it is the header
            context, _, text = text.rpartition("\4")
            yield context, text, other


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
