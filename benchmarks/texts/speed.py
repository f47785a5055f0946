"""Wall-clock of `bimo prepare`, against datatrove on the same text, and the memory it takes."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.texts.cells import PEERS_PYTHON, WORK, WORKERS, Scale
from benchmarks.texts.processes import BIMO, own_process, peers_version, run_tree
from bimo import files

FORMS = {"exact": ("--set", "duplicates.near=false"), "default": ()}
SPEED = {
    "jsonl-exact": ("english", "jsonl", "exact"),
    "jsonl-default": ("english", "jsonl", "default"),
    "files-exact": ("english", "files", "exact"),
    "files-default": ("english", "files", "default"),
    "html-default": ("html", "", "default"),
}


def material(kind: str, size: float) -> dict[str, Any]:
    """Text of a kind, written in a process of its own; see ``material.py``."""
    print(f"text: {kind}, {size:g} ...", flush=True)
    return own_process("texts.material", kind, size)


def prepare(inputs: Path, size: int, options: tuple[str, ...], name: str, keep: Path | None = None) -> dict[str, Any]:
    """Run `bimo prepare` as a user does, two workers.

    Args:
        size: bytes of the text that is in the inputs.
        keep: where to leave the prepared folder.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        out = Path(temporary) / "out"
        ran = run_tree([*BIMO, "prepare", str(inputs), "--out", str(out), "--workers", str(WORKERS), *options], name)
        manifest = files.read_json(out / "manifest.json")
        if keep:
            shutil.move(out, keep)
    return {
        "seconds": ran.seconds,
        "megabytes_per_second": round(size / 1e6 / ran.seconds, 3),
        "largest_process_bytes": ran.largest_bytes,
        "tree_bytes": ran.tree_bytes,
        "documents_in": manifest["funnel"]["documents_in"],
        "documents_kept": manifest["documents"],
        "bytes_kept": manifest["bytes"],
        "reasons": manifest["funnel"]["reasons"],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median speed of some runs, and the runs."""
    return {"megabytes_per_second": statistics.median(run["megabytes_per_second"] for run in runs), "runs": runs}


def speed(scale: Scale, name: str) -> dict[str, Any]:
    """One form of text and of settings."""
    kind, part, form = SPEED[name]
    text = material(kind, scale.megabytes)
    folder = Path(text["folder"]) / part
    runs = [prepare(folder, text["bytes"], FORMS[form], f"speed-{name}") for _ in range(scale.repeats)]
    return {"text": {key: text[key] for key in ("documents", "bytes")}, **summary(runs)}


def profile(scale: Scale) -> dict[str, Any]:
    """Where the time of one task goes, for plain text and for HTML."""
    found = {}
    for kind, part in (("english", "jsonl"), ("html", "")):
        found[kind] = own_process("texts.profile", Path(material(kind, scale.megabytes)["folder"]) / part)
    return found


def peer(scale: Scale) -> dict[str, Any]:
    """One run of datatrove, which takes a quarter of an hour, and bimo on the same files before and after it."""
    text = material("english", scale.megabytes)
    folder = Path(text["folder"]) / "jsonl"
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for runs, run in ((ours, _bimo), (theirs, _datatrove), (ours, _bimo)):
        runs.append(run(folder, text["bytes"]))
        print(f"  {run.__name__[1:]}: {runs[-1]['megabytes_per_second']:.2f} MB/s", flush=True)
    return {
        "text": {key: text[key] for key in ("documents", "bytes")},
        "bimo": summary(ours),
        "datatrove": summary(theirs),
        "versions": {"datatrove": peers_version("datatrove"), "spacy": peers_version("spacy")},
    }


def _bimo(folder: Path, size: int) -> dict[str, Any]:
    return prepare(folder, size, FORMS["exact"], "peer-bimo")


def _datatrove(folder: Path, size: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        result = Path(temporary) / "result.json"
        command = [str(PEERS_PYTHON), "-m", "benchmarks.peers.text_filters", str(result), str(folder), temporary]
        ran = run_tree([*command, str(WORKERS)], "peer-datatrove")
        found = files.read_json(result)
    return {
        "seconds": ran.seconds,
        "megabytes_per_second": round(size / 1e6 / ran.seconds, 3),
        "largest_process_bytes": ran.largest_bytes,
        "tree_bytes": ran.tree_bytes,
        **found,
    }


def memory(scale: Scale) -> dict[str, Any]:
    """Peak memory at a quarter of the size and at the whole, one text at a time; the texts are deleted."""
    runs = []
    for gigabytes in (scale.gigabytes / 4, scale.gigabytes):
        text = material("synthetic", gigabytes)
        try:
            run = prepare(Path(text["folder"]), text["bytes"], FORMS["default"], "memory")
        finally:
            shutil.rmtree(Path(text["folder"]).parent, ignore_errors=True)
        runs.append({"input_bytes": text["bytes"], **run})
        print(f"  {gigabytes:g} GB: {run['tree_bytes'] / 1e9:.2f} GB in all processes", flush=True)
    return {"runs": runs}
