"""Any source becomes a prepared folder: read once, hashed, compressed, with every skipped file accounted for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bimo.errors import DataError
from bimo.text import store
from bimo.text.document import Progress
from bimo.text.source import Source


def prepare(source: Source, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write the documents of ``source`` to the folder ``out``, whole or not at all, in bounded memory.

    Returns:
        The manifest, and ``unchanged``: True when ``out`` holds these very inputs already and nothing was done.

    Raises:
        DataError: ``out`` holds something else, cannot be written, or the source has no readable text.
    """
    inputs = _fingerprint(source)
    if store.is_prepared(out):
        manifest = store.read_manifest(out)
        if manifest.get("inputs_sha256") == inputs:
            return {**manifest, "unchanged": True}
        expected, got = "text prepared from the same, unchanged files", f"text prepared from {manifest.get('source')}"
        raise DataError(f"{out} is in use.", expected=expected, got=got, fix="Delete it, or choose another --out.")
    store.refuse_unless_new(out)

    def facts() -> dict[str, Any]:
        skipped = [asdict(item) for item in source.skipped]
        return {"source": source.name, "licence": source.licence, "inputs_sha256": inputs, "skipped": skipped}

    return {**store.write_documents(source.watched(progress), out, facts), "unchanged": False}


def _fingerprint(source: Source) -> str:
    """A hash of what would be read and how, without reading it: names, sizes and times of the files, options."""
    files = [(file.name, file.size, file.modified, file.sha256) for file in source.files]
    return hashlib.sha256(json.dumps([files, asdict(source.options)]).encode("utf-8")).hexdigest()
