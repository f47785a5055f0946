"""Where the time of preparing one file goes, in one process: reading, each step, signatures, writing, assembling.

python -m benchmarks.texts.profile RESULT FOLDER
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bimo import files
from bimo.text import store
from bimo.text.document import Document, Drop
from bimo.text.prepare.part import make_part
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.recipe import Clean, Recipe, build_steps, fitted
from bimo.text.scan import facts_of
from bimo.text.signatures import exact_hashes, signatures
from bimo.text.source import Source, open_source

MOST_BYTES = 20_000_000  # of the files, the first ones


def profile(folder: Path) -> dict[str, Any]:
    """Seconds of each part of the work, on the first files of a folder."""
    chosen: list[str] = []
    size = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not chosen or size + path.stat().st_size <= MOST_BYTES:
            chosen, size = [*chosen, str(path)], size + path.stat().st_size
    source = open_source(*chosen)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        out = Path(temporary) / "out"
        seconds, read_bytes = _parts(source, fitted(Recipe(), Path(temporary))[0].clean)
        with _timed(seconds, "whole"):
            prepare(source, out, Recipe(), workers=1, run=lambda tasks: map(make_part, tasks))
        (out / store.MANIFEST).unlink()  # the parts are finished: what is left is assembling
        with _timed(seconds, "assembling"):
            prepare(source, out, Recipe(), workers=1, run=lambda tasks: map(make_part, tasks))
    known = sum(value for name, value in seconds.items() if name not in ("whole", "exact hashes alone"))
    seconds["writing, hashing, ledger"] = max(0.0, seconds["whole"] - known)
    return {"input_bytes": size, "text_bytes": read_bytes, "seconds": {k: round(v, 4) for k, v in seconds.items()}}


def _as_it_is(document: Document) -> Document | Drop:
    return document


def _parts(source: Source, clean: Clean) -> tuple[dict[str, float], int]:
    """The same work piece by piece, and the bytes of text that were read."""
    seconds: dict[str, float] = defaultdict(float)
    with _timed(seconds, "reading"):
        documents = [found for found in source.records() if isinstance(found, Document)]
    size = sum(len(document.text.encode("utf-8")) for document in documents)
    steps, texts = [(f"step {name}", step) for name, step in build_steps(clean)], []
    for _, step in steps:
        step(documents[0])  # what is loaded for the first text counts for no megabyte
    for document in documents:  # one after the other, as they are prepared: the steps share what a scan has found
        found, began = document, time.perf_counter()
        facts_of(found.text)
        for name, step in (("scan", _as_it_is), *steps):
            result = step(found)
            ended = time.perf_counter()
            seconds[name] += ended - began
            if isinstance(result, Drop) or not result.text.strip():
                break
            found, began = result, time.perf_counter()
        else:
            texts.append(found.text)
    with _timed(seconds, "signatures"):
        signatures(texts)
    with _timed(seconds, "exact hashes alone"):
        exact_hashes(texts)
    return seconds, size


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - began


if __name__ == "__main__":
    files.write_json(Path(sys.argv[1]), profile(Path(sys.argv[2])))
