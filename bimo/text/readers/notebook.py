"""Jupyter notebooks: their text and their code, in order, without what the code printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bimo.text.decode import ByteStream, Unreadable, text_chunks
from bimo.text.readers.record import Bad, Options, Record, Text, with_newlines
from bimo.text.readers.sections import apart
from bimo.text.readers.streams import RECORD_BYTES


def read_notebook(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The cells of a notebook (format 3 or 4) as Markdown, code between fences; one document, at most 64 MB.

    Outputs are left out: they repeat what the code says, as pictures and numbers.
    """
    pieces, size = [], 0
    for chunk in text_chunks(stream, options.encoding):
        pieces.append(chunk)
        size += len(chunk)
        if size > RECORD_BYTES:
            raise Unreadable("larger than 64 MB")
    try:
        notebook = json.loads("".join(pieces))
    except (ValueError, RecursionError):
        raise Unreadable("not a notebook: broken JSON") from None
    cells = _cells(notebook)
    if cells is None:
        raise Unreadable("not a notebook: it has no cells")
    shown = [_shown(cell, _language(notebook)) for cell in cells]
    yield Text("", "".join(piece for piece in apart(shown) if not isinstance(piece, Bad)), "code")


def _cells(notebook: Any) -> list[Any] | None:
    if not isinstance(notebook, dict):
        return None
    if isinstance(sheets := notebook.get("worksheets"), list):  # format 3
        lists = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
        return [cell for cells in lists if isinstance(cells, list) for cell in cells]
    cells = notebook.get("cells")
    return cells if isinstance(cells, list) else None


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        found = metadata.get(key) if isinstance(metadata, dict) else None
        if isinstance(found, dict) and isinstance(language := found.get(name), str) and language.isidentifier():
            return language.lower()
    return "python"


def _shown(cell: Any, language: str) -> str:
    kind = cell.get("cell_type") if isinstance(cell, dict) else None
    source = cell.get("source", cell.get("input", "")) if kind else ""
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str) or not source.strip() or kind == "raw":
        return ""
    source = with_newlines(source).strip("\n")
    if kind != "code":
        level = cell.get("level") if kind == "heading" else None
        return f"{'#' * level} {source}" if isinstance(level, int) and 0 < level < 7 else source
    fence = "```" if "```" not in source else "````"
    return f"{fence}{language}\n{source}\n{fence}"
