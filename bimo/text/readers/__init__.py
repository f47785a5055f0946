"""One reader a file format: a stream of bytes becomes records of text, in bounded memory.

A reader yields :class:`~bimo.text.readers.record.Text` or, for what gives none, ``Bad`` records; it raises
:class:`~bimo.text.decode.Unreadable` when the rest of the file gives nothing.
To add a format, write such a function in a file of this folder and name its suffixes in ``READERS``.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import PurePath

from bimo.text.decode import COMPRESSED_SUFFIXES
from bimo.text.readers.archives import read_tar, read_zip
from bimo.text.readers.epub import read_epub
from bimo.text.readers.mail import read_eml, read_mbox
from bimo.text.readers.notebook import read_notebook
from bimo.text.readers.office import read_docx, read_pptx, read_xlsx
from bimo.text.readers.opendocument import read_odt
from bimo.text.readers.pdf import read_pdf
from bimo.text.readers.plain import read_text
from bimo.text.readers.record import Reader
from bimo.text.readers.records import read_arrow, read_json, read_jsonl, read_parquet, read_table
from bimo.text.readers.rtf import read_rtf
from bimo.text.readers.warc import read_warc
from bimo.text.readers.web import read_html

PROSE_SUFFIXES = (  # the empty suffix is for README, LICENSE, Makefile: a binary file is found out by its bytes
    "", ".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".org", ".adoc", ".srt",
)  # fmt: skip
CODE_SUFFIXES = (
    ".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".svelte", ".vue", ".css", ".c", ".h", ".cc", ".cpp",
    ".hpp", ".cxx", ".cu", ".cs", ".java", ".kt", ".scala", ".go", ".rs", ".swift", ".m", ".rb", ".php", ".pl", ".lua",
    ".r", ".jl", ".hs", ".ml", ".ex", ".exs", ".erl", ".clj", ".lisp", ".el", ".f90", ".sh", ".bash", ".sql", ".vim",
    ".yaml", ".yml", ".toml", ".ini", ".cfg",
)  # fmt: skip

READERS: dict[str, Reader] = {
    **dict.fromkeys(PROSE_SUFFIXES + CODE_SUFFIXES, read_text),
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": partial(read_table, delimiters=",;\t"),
    ".tsv": partial(read_table, delimiters="\t,;"),
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".zip": read_zip,
    ".tar": read_tar,
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), read_html),
    **dict.fromkeys((".warc", ".wet"), read_warc),
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".pptx": read_pptx,
    ".xlsx": read_xlsx,
    ".odt": read_odt,
    ".rtf": read_rtf,
    ".epub": read_epub,
    ".mbox": read_mbox,
    ".eml": read_eml,
    ".ipynb": read_notebook,
}
# Read by Python alone; for others there are libraries in C and C++, which a damaged file may bring down.
SAFE_SUFFIXES = frozenset((*PROSE_SUFFIXES, *CODE_SUFFIXES, ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".rtf"))
SHORT_FORMS = {".tgz": ".tar.gz", ".tbz": ".tar.bz2", ".tbz2": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}


def suffixes_of(name: str) -> tuple[str, str]:
    """What decides on the reader of a file, and the suffix of its compression or ``""``."""
    name = (PurePath(name).name if os.sep in name or "/" in name else name).lower()
    stem, suffix = _parted(name)
    if suffix in SHORT_FORMS:
        stem, suffix = _parted(stem + SHORT_FORMS[suffix])
    return (_parted(stem)[1], suffix) if suffix in COMPRESSED_SUFFIXES else (suffix, "")


def _parted(name: str) -> tuple[str, str]:
    """The name of a file without its suffix, and that, as pathlib has it, at a tenth of the cost."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if 0 < dot < len(name) - 1 else (name, "")


def kind_of(name: str) -> str:
    """What the name of a file says of its text."""
    return "code" if suffixes_of(name)[0] in CODE_SUFFIXES else "prose"
