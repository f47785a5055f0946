"""The finished cells as Markdown: what was measured beside its goal, and what is missing said so."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.texts.cells import (
    FULL,
    MEMORY_AT,
    MEMORY_GOAL,
    PEER_GOAL,
    QUICK,
    SPEED_GOALS,
    TINY,
    TOKENS_GOAL,
    VOCABULARIES,
    Scale,
)
from benchmarks.texts.effect import JUDGES, KINDS
from benchmarks.texts.speed import SPEED
from benchmarks.training.table import MISSING
from bimo import files

SETTINGS = {"exact": "without MinHash", "default": "everything that is on by default"}
TEXTS = {"jsonl": "English, JSON lines", "files": "English, one file a document", "html": "HTML"}
NOTHING = {"planted": 0, "touched": 0, "wrong": 0, "elsewhere": 0}
LEAST_PROJECTED = 1e9  # bytes that a projection needs to mean anything
UNEXAMINED = (
    "Both were trained with `--no-doctor`: the doctor refuses raw text, which repeats passages of its own test."
)
FINDERS = ("bimo", "py3langid", "lingua", "presidio", "datatrove")

Cell = dict[str, Any] | None


def read(name: str, scale: Scale) -> Cell:
    """A finished cell; at full size where there is one, else the quick one."""
    for path in [one.result(name) for one in ((TINY,) if scale.name == "tiny" else (FULL, QUICK))]:
        if path.is_file():
            return files.read_json(path)
    return None


def tables(scale: Scale, seeds: Iterable[int]) -> str:
    """All tables, one after the other."""
    cells = {name: read(name, scale) for name in ("speed-profile", "peer", "memory", "tokens")}
    labelled = {name: read(f"labels-{name}", scale) for name in ("language", "pii", "copies")}
    parts = [
        speed_table({name: read(f"speed-{name}", scale) for name in SPEED}),
        profile_table(cells["speed-profile"]),
        peer_table(cells["peer"]),
        memory_table(cells["memory"]),
        tokens_table(cells["tokens"]),
        language_table(labelled["language"]),
        pii_table(labelled["pii"]),
        copies_table(labelled["copies"]),
        effect_table([read(f"effect-{seed}", scale) for seed in seeds]),
    ]
    return "\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    if not rows:
        return f"{columns[0]}: {MISSING}.\n"
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n" + (f"\n{note}\n" if note else "")


def _spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    middle = f"**{show(statistics.median(values))}**"
    return middle if len(values) == 1 else f"{middle} ({show(min(values))} to {show(max(values))})"


def _rates(cell: dict[str, Any]) -> str:
    return _spread([run["megabytes_per_second"] for run in cell["runs"]], lambda value: f"{value:.2f}")


def speed_table(cells: dict[str, Cell]) -> str:
    """Megabytes a second of each form."""
    rows = []
    for name, cell in cells.items():
        text, form = name.split("-")
        if cell:
            run = cell["runs"][0]
            kept = f"{run['documents_kept']:,} of {run['documents_in']:,}"
            goal = SPEED_GOALS["html" if text == "html" else form]
            size = f"{cell['text']['bytes'] / 1e6:.1f} MB"
            rows.append([TEXTS[text], SETTINGS[form], size, kept, _rates(cell), f"≥ {goal:g}"])
        else:
            rows.append([TEXTS[text], SETTINGS[form], *[MISSING] * 4])
    return _table(["`bimo prepare`", "settings", "text", "documents kept", "MB/s", "goal"], rows)


def profile_table(cell: Cell) -> str:
    """Seconds of each part for a megabyte of input, in one process."""
    if not cell:
        return _table(["Parts of the time"], [])
    names = dict.fromkeys(name for kind in cell["kinds"].values() for name in kind["seconds"])
    rows = []
    for name in names:
        columns = []
        for kind in ("english", "html"):
            found = cell["kinds"][kind]
            seconds = found["seconds"].get(name, 0.0)
            whole = found["seconds"]["whole"]
            columns += [f"{seconds / found['input_bytes'] * 1e9:.2f}", f"{seconds / whole:.1%}"]
        rows.append([name, *columns])
    columns = ["one process", "English, ms/MB", "share", "HTML, ms/MB", "share"]
    return _table(columns, rows)


def peer_table(cell: Cell) -> str:
    """Bimo against datatrove."""
    if not cell:
        return _table(["Against datatrove"], [])
    rows = []
    ratio = cell["bimo"]["megabytes_per_second"] / cell["datatrove"]["megabytes_per_second"]
    for name, title in (("bimo", "bimo, without MinHash"), ("datatrove", f"datatrove {cell['versions']['datatrove']}")):
        runs = cell[name]["runs"]
        memory = f"{max(run['tree_bytes'] for run in runs) / 1e9:.2f} GB"
        shown = f"**{ratio:.1f}**" if name == "bimo" else ""
        kept = f"{runs[0]['documents_kept']:,} of {cell['text']['documents']:,}"
        rows.append([title, kept, _rates(cell[name]), memory, shown, f"≥ {PEER_GOAL:g}" if shown else ""])
    size = f"{cell['text']['bytes'] / 1e6:.1f} MB of English in turn"
    return _table([size, "documents kept", "MB/s", "memory of all processes", "ratio", "goal"], rows)


def memory_table(cell: Cell) -> str:
    """Peak memory at two sizes, and what they promise for a third."""
    if not cell:
        return _table(["Memory"], [])
    runs = cell["runs"]
    rows = [
        [
            f"{run['input_bytes'] / 1e9:.3g} GB",
            f"{run['documents_in']:,}",
            f"{run['tree_bytes'] / 1e9:.2f} GB",
            f"{run['largest_process_bytes'] / 1e9:.2f} GB",
            "",
        ]
        for run in runs
    ]
    if runs[-1]["input_bytes"] > LEAST_PROJECTED:
        documents, tree, largest = (
            _projected(runs, key, MEMORY_AT) for key in ("documents_in", "tree_bytes", "largest_process_bytes")
        )
        shown = [f"{documents:,.0f}", f"**{tree / 1e9:.2f} GB**", f"{largest / 1e9:.2f} GB"]
        rows.append([f"{MEMORY_AT / 1e9:g} GB, projected", *shown, f"≤ {MEMORY_GOAL / 1e9:g} GB"])
    return _table(["input", "documents", "all processes together", "largest process", "goal"], rows)


def _projected(runs: Sequence[dict[str, Any]], key: str, size: float) -> float:
    """On a straight line through the two runs."""
    small, large = runs
    slope = (large[key] - small[key]) / (large["input_bytes"] - small["input_bytes"])
    return float(large[key] + slope * (size - large["input_bytes"]))


def tokens_table(cell: Cell) -> str:
    """Tokenising and learning merges, against the library."""
    if not cell:
        return _table(["Tokenising"], [])
    rows = []
    for vocabulary in VOCABULARIES:
        for work, title in (("encode", "encode, bimo with the shard written"), ("train", "learn the merges")):
            seconds = cell[str(vocabulary)]["seconds"]
            ours, theirs = (
                [cell["bytes"] / 1e6 / value for value in seconds[f"{work} {who}"]] for who in ("bimo", "library")
            )
            ratio = statistics.median(ours) / statistics.median(theirs)
            shown = [_spread(values, lambda value: f"{value:.2f}") for values in (ours, theirs)]
            rows.append([title, f"{vocabulary:,}", *shown, f"**{ratio:.2f}**", f"≥ {TOKENS_GOAL:g}"])
    columns = [f"{cell['bytes'] / 1e6:.1f} MB", "vocabulary", "bimo, MB/s", f"tokenizers {cell['version']}, MB/s"]
    return _table([*columns, "ratio", "goal"], rows)


def _finders(found: dict[str, Any]) -> list[str]:
    return [name for name in FINDERS if name in found]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole else "–"


def language_table(cell: Cell) -> str:
    """Recall of short and whole samples, and precision, of each language."""
    if not cell:
        return _table(["Languages"], [])
    finders = _finders(cell["finders"])
    rows = []
    for name, first in cell["finders"]["bimo"].items():
        columns = [name, f"{first.get('short', 0)} + {first.get('whole', 0)}"]
        for finder in finders:
            row = cell["finders"][finder][name]
            right = row.get("short right", 0) + row.get("whole right", 0)
            recalls = [_share(row.get(f"{form} right", 0), row.get(form, 0)) for form in ("short", "whole")]
            columns.append(f"{' / '.join(recalls)} / {_share(right, right + row.get('wrong', 0))}")
        rows.append(columns)
    rows.append(["texts a second", "", *(f"{cell['texts_per_second'][finder]:,.0f}" for finder in finders)])
    titles = [f"{finder}: recall short / whole / precision" for finder in finders]
    return _table(["language", "samples, short + whole", *titles], rows, cell["note"])


def pii_table(cell: Cell) -> str:
    """Recall and precision of each kind of personal data."""
    if not cell:
        return _table(["Personal data"], [])
    finders = _finders(cell["finders"])
    kinds = sorted({kind for finder in finders for kind in cell["finders"][finder]["kinds"]})
    rows = []
    for kind in kinds:
        counts = cell["finders"]["bimo"]["kinds"].get(kind, {})
        columns = [kind, f"{counts.get('planted', 0):,}"]
        for finder in finders:
            row = {**NOTHING, **cell["finders"][finder]["kinds"].get(kind, {})}
            shown = [_share(row["touched"], row["planted"]), _share(row["touched"], row["touched"] + row["wrong"])]
            looked = row["touched"] + row["wrong"] + row["elsewhere"] > 0
            columns.append(f"{' / '.join(shown)} / {row['elsewhere']}" if looked else "not looked for")
        rows.append(columns)
    rows.append(["MB/s, one core", "", *(f"{cell['finders'][one]['megabytes_per_second']:.2f}" for one in finders)])
    titles = [f"{finder}: recall / precision / in the text around" for finder in finders]
    return _table(["kind", "planted", *titles], rows)


def copies_table(cell: Cell) -> str:
    """Recall by true similarity, and mistakes."""
    if not cell:
        return _table(["Near duplicates"], [])
    finders = _finders(cell["english"]["finders"])
    rows = []
    for language in ("english", "chinese"):
        found = cell[language]["finders"]
        for low in found["bimo"]["by_similarity"]:
            counts = [found[finder]["by_similarity"][low] for finder in finders]
            if counts[0][1]:
                recalls = [_share(right, whole) for right, whole in counts]
                rows.append([language.title(), f"similarity from {low}", f"{counts[0][1]:,}", *recalls])
        wrong = [f"{found[finder]['unlike']} of {found[finder]['clustered']}" for finder in finders]
        rows.append([language.title(), "clustered with nothing like them", "", *wrong])
        seconds = [f"{cell[language]['seconds'][finder]:.1f}" for finder in finders]
        rows.append([language.title(), "seconds", f"{cell[language]['documents']:,}", *seconds])
    return _table(["text", "planted copies", "number", *finders], rows)


def effect_table(cells: Sequence[Cell]) -> str:
    """Bits per byte of the models that learned from raw and from cleaned text."""
    finished = [cell for cell in cells if cell]
    if not finished:
        return _table(["Raw against cleaned text"], [])
    rows = []
    for judge, title in zip(JUDGES, ("held-out mails and pages, cleaned", "`wiki-en`"), strict=True):
        values = {kind: [cell[kind][judge] for cell in finished] for kind in KINDS}
        shown = [_spread(values[kind], lambda value: f"{value:.3f}") for kind in KINDS]
        changes = [cleaned / raw - 1 for raw, cleaned in zip(values["raw"], values["cleaned"], strict=True)]
        seeds = ", ".join(str(cell["seed"]) for cell in finished)
        rows.append([title, seeds, *shown, _spread(changes, lambda value: f"{value:+.1%}")])
    first = finished[0]
    size = first["text"]["taken"]["raw"]["bytes"] / 1e6
    columns = [f"judged by ({size:.1f} MB each, {first['budget']})", "seeds", "raw, bpb", "cleaned, bpb", "difference"]
    return _table(columns, rows, UNEXAMINED)
