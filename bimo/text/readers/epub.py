"""Books: the chapters of an EPUB in reading order, as one document.

A book is one document because it is one work: as a plain text it would be one, too, near-duplicates are then found
between books, and no book stands half in the training and half in the test text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from bimo.text.decode import ByteStream, Unreadable
from bimo.text.readers.charset import decoded
from bimo.text.readers.package import open_package, read_member, read_xml
from bimo.text.readers.record import Bad, Options, Record
from bimo.text.readers.sections import apart, sections
from bimo.text.readers.web import declared_charset, page_text

PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
DATE = re.compile(r"\d{4}(?:-\d\d(?:-\d\d(?:T[\d:]+Z)?)?)?")


def read_epub(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The pages that the book's spine names, in its order, without the table of contents.

    A chapter that is missing, damaged or encrypted is reported. Memory: about eight times the longest chapter.

    Raises:
        Unreadable: it is no book.
    """
    with open_package(stream, "EPUB book") as package:
        path, book = _book(package)
        time = next((text for text in _texts(book, "date") if DATE.fullmatch(text)), "")
        yield from sections(apart(_chapters(package, posixpath.dirname(path), book)), time=time)


def _book(package: ZipFile) -> tuple[str, ElementTree.Element]:
    container = read_xml(package, "META-INF/container.xml", "EPUB book")
    root = container.find(".//{*}rootfile[@full-path]")
    if root is None:
        raise Unreadable("damaged EPUB book: META-INF/container.xml names no package")
    return root.attrib["full-path"], read_xml(package, root.attrib["full-path"], "EPUB book")


def _texts(book: ElementTree.Element, name: str) -> Iterator[str]:
    return ((found.text or "").strip() for found in book.iterfind(f".//{{*}}metadata/{{*}}{name}"))


def _chapters(package: ZipFile, folder: str, book: ElementTree.Element) -> Iterator[str | Bad]:
    items = {item.get("id"): item for item in book.iterfind(".//{*}manifest/{*}item")}
    encrypted = _encrypted(package)
    spine = [items.get(reference.get("idref")) for reference in book.iterfind(".//{*}spine/{*}itemref")]
    if not spine:
        raise Unreadable("damaged EPUB book: its spine is empty")
    for number, item in enumerate(spine, 1):
        if item is None:
            yield Bad(f"chapter {number}", "named in the spine, but not in the manifest")
        elif "nav" not in item.get("properties", "").split() and item.get("media-type") in PAGES:
            name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
            yield Bad(name, "encrypted (DRM)") if name in encrypted else _chapter(package, name)


def _chapter(package: ZipFile, name: str) -> str | Bad:
    try:
        data = read_member(package, name)
        if data is None:
            return Bad(name, "named in the book, but not in the file")
        html, _ = decoded(data, declared_charset(data))
        return page_text(html, main_content=False)
    except Unreadable as cause:
        return Bad(name, str(cause))


def _encrypted(package: ZipFile) -> set[str]:
    if "META-INF/encryption.xml" not in package.namelist():
        return set()
    references = read_xml(package, "META-INF/encryption.xml", "EPUB book").iterfind(".//{*}CipherReference")
    return {unquote(reference.get("URI", "")) for reference in references}
