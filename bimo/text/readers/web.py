"""Web pages: the main content of HTML and XHTML as lines and paragraphs (resiliparse).

Resiliparse keeps or leaves out an element by its tag, class, role, depth and share of links (Bevendorff et al.,
"Elastic ChatNoir", ECIR 2018, and the manual of its HTML2Text). Two of its rules lose text, and are worked around:
it takes every ``<ul>`` near ``<body>`` for a menu, which here are judged by class and links as the deeper ones are;
and it takes most texts of three bytes for icons (和, an em dash, "où"), which here never stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bimo.text.decode import ByteStream, Unreadable
from bimo.text.readers.charset import decoded
from bimo.text.readers.record import Options, Record, Text, with_newlines
from bimo.text.readers.streams import whole

CHARSET = re.compile(
    rb"""<(?:meta\s[^>]{0,200}?charset|\?xml\s[^>]{0,200}?encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I
)
XHTML = re.compile(r"^\s*<\?xml\s|\bXHTML\b|w3\.org/1999/xhtml")
SELF_CLOSED = re.compile(r"<([a-z][\w:-]*+)([^<>]*+)(?<=/)>", re.I)
VOID = (
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"
)  # fmt: skip
# A text that may take three bytes in UTF-8 and end beyond ASCII: "和", "né"; icons (the private use area) left out.
LONE = re.compile(r">(\s*[!-%'-;=?-~]?(?:[\x80-\ud7ff\uf900-\uffff]|&(?!#[xX][eEfF]\w{3};)#?\w{2,8};)\s*)(?=<)")
MARK = "\ufdd0"  # no character, and never one
MANY_NEWLINES = re.compile(r"\n{3,}")
MANY_TAGS, MOST_TAGS = 2_000, 2_000_000
TOO_DEEP = "body" + " > *" * 256  # browsers stop at 512; the search for main content is quadratic in the depth
SHALLOW_LISTS = "body > ul, body > * > ul, body > * > * > ul"


def read_html(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The title and main content of a page as one document; a page of more than 64 MB is refused.

    Memory: about eight times the page.
    """
    data = whole(stream)
    html, notes = decoded(data, declared_charset(data), options.encoding)
    yield Text("", page_text(html), "web", notes=notes)


def declared_charset(data: bytes) -> str | None:
    """The encoding that a page names in its beginning."""
    found = CHARSET.search(data[:4096])
    return found[1].decode("ascii", errors="replace") if found else None


def page_text(html: str, *, main_content: bool = True) -> str:
    """The text of a page: blocks on lines, paragraphs between blank lines, no spaces at the ends of lines.

    Args:
        main_content: leave out menus, headers, footers and sidebars (unless nothing else is there, or elements are
            nested in each other more than 256 times), and put the title first.

    Raises:
        Unreadable: it is no text at all, or has more than 2 million tags.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    if "\0" in html:
        raise Unreadable("binary file")
    tags = html.count("<")
    if tags > MOST_TAGS:
        raise Unreadable(f"more than {MOST_TAGS} tags")
    if XHTML.search(html[:2000]):
        html = SELF_CLOSED.sub(_closed, html)
    tree = HTMLTree.parse(LONE.sub(rf">\1{MARK}", html))
    body = tree.body
    if body is None:
        return ""
    text = ""
    if main_content and (tags < MANY_TAGS or body.query_selector(TOO_DEEP) is None):
        _lower_lists(tree)
        text = extract_plain_text(tree, main_content=True, alt_texts=False)
    text = with_newlines((text or extract_plain_text(tree, alt_texts=False)).replace(MARK, ""))
    text = MANY_NEWLINES.sub("\n\n", "\n".join(map(str.rstrip, text.split("\n")))).strip("\n")
    return _titled(" ".join((tree.title or "").replace(MARK, "").split()), text) if main_content else text


def _closed(tag: re.Match[str]) -> str:
    """HTML knows no ``<title/>`` or ``<a id="x"/>`` of XHTML, and would put the rest of the page inside."""
    return tag[0] if tag[1].lower() in VOID else f"<{tag[1]}{tag[2]}></{tag[1]}>"


def _lower_lists(tree: Any) -> None:
    """Put ``<ul>`` that stand near ``<body>`` as deep as those which resiliparse judges by what they hold."""
    for found in tree.body.query_selector_all(SHALLOW_LISTS):
        outer, middle, inner = (tree.create_element("div") for _ in range(3))
        found.replace_with(outer)
        outer.append_child(middle)
        middle.append_child(inner)
        inner.append_child(found)


def _titled(title: str, text: str) -> str:
    """The text under its title, which is not repeated where the first line says it: "Ink" for "Ink - a site"."""
    first = text.lstrip().partition("\n")[0].strip()
    said = first and (title in first or (first in title and 4 * len(first) >= len(title)))
    return text if said or not title else f"{title}\n\n{text}" if first else title
