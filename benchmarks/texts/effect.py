"""The same model on raw and on cleaned text of equal bytes, judged on the same held-out text.

The text is mails and pages of documentation, one file in ten held out. Raw is what `bimo prepare --raw` makes of the
rest, cleaned what `bimo prepare` makes of it; of both, documents in one seeded order up to the same number of bytes.
Both train without the doctor, who rightly refuses text that repeats itself across the split: dirt is what is measured.
Run as ``python -m benchmarks.texts.effect RESULT MEGABYTES``, it makes these texts.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.texts.cells import HELD_OUT_BYTES, SHAPE, WORK, Scale
from benchmarks.texts.material import make
from benchmarks.texts.packages import mails
from benchmarks.texts.processes import BIMO, own_process, run_tree
from bimo import files
from bimo.text.source import open_source

HELD_OUT = 10  # one file in so many
INPUTS = 2.5  # megabytes of each input for one that is learned from
OTHER = "wiki-en"  # held-out text that bimo has not cleaned
KINDS = ("raw", "cleaned")
JUDGES = ("held-out", "other")


def make_texts(megabytes: float) -> dict[str, Any]:
    """Write ``raw.jsonl``, ``cleaned.jsonl``, ``held-out.jsonl`` and ``other.jsonl``, unless they are there."""
    folder = WORK / f"effect-{megabytes:g}"
    if not folder.is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".effect.", dir=WORK))
        try:
            files.write_json(temporary / "facts.json", _write(megabytes, temporary))
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return {"folder": str(folder), **files.read_json(folder / "facts.json")}


def _write(megabytes: float, folder: Path) -> dict[str, Any]:
    pages = Path(str(make("html", megabytes * INPUTS)["folder"]))
    for name, origin in (("mails", mails()), ("pages", pages)):
        _sort(sorted(path for path in origin.rglob("*") if path.is_file()), megabytes * INPUTS * 1e6, folder, name)
    prepared = {
        "raw": ("learn", ["--raw"]),
        "cleaned": ("learn", []),
        "held-out": ("held-out", []),
    }
    for name, (inputs, options) in prepared.items():
        run_tree(
            [*BIMO, "prepare", str(folder / "files" / inputs), "--out", str(folder / name), *options], f"effect-{name}"
        )
    available = {name: files.read_json(folder / name / "manifest.json")["bytes"] for name in prepared}
    size = int(min(megabytes * 1e6, available["raw"], available["cleaned"]))
    taken = {name: _take(str(folder / name), size, folder / f"{name}.jsonl") for name in KINDS}
    taken["held-out"] = _take(str(folder / "held-out"), HELD_OUT_BYTES, folder / "held-out.jsonl")
    taken["other"] = _take(OTHER, HELD_OUT_BYTES, folder / "other.jsonl")
    for name in ("files", *prepared):
        shutil.rmtree(folder / name)
    return {"available_bytes": available, "taken": taken}


def _sort(paths: Iterable[Path], most: float, folder: Path, name: str) -> None:
    """Copy files to ``files/learn`` and every tenth to ``files/held-out``, up to ``most`` bytes."""
    order = list(paths)
    random.Random(name).shuffle(order)
    for number, path in enumerate(order):
        target = (
            folder / "files" / ("held-out" if number % HELD_OUT == 0 else "learn") / name / f"{number:06d}-{path.name}"
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        most -= path.stat().st_size
        if most < 0:
            return


def _take(what: str, size: int, target: Path) -> dict[str, int]:
    """Documents in a seeded order, ``size`` bytes of text; the last one is cut."""
    texts = [document.text for document in open_source(what)]
    random.Random(0).shuffle(texts)
    count, left = 0, size
    with target.open("w", encoding="utf-8") as file:
        for text in texts:
            cut = text.encode("utf-8")[:left].decode("utf-8", "ignore")
            if cut.strip():
                file.write(json.dumps({"id": str(count), "text": cut}) + "\n")
                count, left = count + 1, left - len(cut.encode("utf-8"))
            if left <= 0:
                break
    return {"documents": count, "bytes": size - left}


def effect(scale: Scale, seed: int) -> dict[str, Any]:
    """Train on each text with one seed, and measure both models on both held-out texts."""
    text = own_process("texts.effect", scale.effect_megabytes)
    folder = Path(text["folder"])
    kept = {key: value for key, value in text.items() if key != "folder"}  # a path of this machine
    found: dict[str, Any] = {"text": kept, "budget": scale.budget, "seed": seed}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as temporary:
            run = Path(temporary) / "run"
            options = ["--budget", scale.budget, "--seed", str(seed), "--out", str(run), "--no-doctor"]
            options += [word for value in SHAPE for word in ("--set", value)]
            command = [*BIMO, "train", "--data", str(folder / f"{kind}.jsonl"), *options]
            ran = run_tree(command, f"effect-{kind}-{seed}")
            lineage = files.read_json(run / "lineage.json")
            found[kind] = {
                "seconds": ran.seconds,
                "parameters": lineage["model"]["parameters"],
                "own_test_bits_per_byte": lineage["metrics"]["test_bits_per_byte"]["value"],
                **{judge: _measured(run, folder / f"{judge}.jsonl") for judge in JUDGES},
            }
        print(f"  {kind}: {', '.join(f'{judge} {found[kind][judge]:.4f} bpb' for judge in JUDGES)}", flush=True)
    return found


def _measured(run: Path, text: Path) -> float:
    output = run_tree([*BIMO, "eval", str(run), "--data", str(text), "--json"], "effect-eval").output
    value, _ = json.JSONDecoder().raw_decode(output[output.index("{") :])
    return float(value["bits_per_byte"]["value"])


if __name__ == "__main__":
    files.write_json(Path(sys.argv[1]), make_texts(float(sys.argv[2])))
