"""The finished cells as Markdown: measured ratios beside their goals, and what is missing said so."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.training.cells import CELLS, FORMS, GOALS, MEMORY_GOAL, PEERS, RESULTS, SPEED_GOALS, Cell
from benchmarks.training.ladder import answer
from bimo import files

MISSING = "not measured yet"


def read_cells(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All finished cells of peers and of bimo, tuning runs left out."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("tun"))
    return [files.read_json(path) for path in paths]


def known(cells: Iterable[dict[str, Any]], cell: str, seed: int, *, warm: bool) -> dict[float, float | None]:
    """Budget -> bits per byte of bimo's finished runs."""
    return {
        run["budget_seconds"]: run["test"] and run["test"]["bits_per_byte"]
        for run in cells
        if run["peer"] == "bimo" and (run["cell"], run["seed"], run["warm"]) == (cell, seed, warm)
    }


def _bimo_run(cells: list[dict[str, Any]], peer: dict[str, Any], *, warm: bool) -> tuple[dict[str, Any] | None, bool]:
    """The shortest run of bimo that reaches a peer's loss, and whether the rung below falls short."""
    budgets = known(cells, peer["cell"], peer["seed"], warm=warm)
    budget, exact = answer(CELLS[peer["cell"]].ladder(), budgets, peer["test"]["bits_per_byte"])
    for run in cells:
        same = (run["cell"], run["seed"], run["warm"]) == (peer["cell"], peer["seed"], warm)
        if run["peer"] == "bimo" and same and run["budget_seconds"] == budget:
            return run, exact
    return None, False


def _peers(cells: list[dict[str, Any]], cell: str, name: str, form: str, *, warm: bool = False) -> list[dict[str, Any]]:
    wanted = (cell, name, form, warm)
    return [one for one in cells if one["peer"] != "bimo" and _key(one) == wanted]


def _key(one: dict[str, Any]) -> tuple[str, str, str, bool]:
    return one["cell"], one["peer"], one["form"], one["warm"]


def _spread(values: list[float], show: Callable[[float], str]) -> str:
    """The median, and the range where there are several."""
    middle = show(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({show(min(values))} to {show(max(values))})"


def _ratio(cells: list[dict[str, Any]], peers: list[dict[str, Any]], *, warm: bool) -> str:
    """Bimo's wall-clock over the peer's, the seeds' median and range."""
    ratios, bounds, never = [], 0, 0
    for peer in peers:
        run, exact = _bimo_run(cells, peer, warm=warm)
        if run is not None:
            ratios.append(run["wall_seconds"] / peer["wall_seconds"])
            bounds += not exact
        elif known(cells, peer["cell"], peer["seed"], warm=warm):
            never += 1
    if not ratios:
        return "not reached by the runs so far" if never else MISSING
    notes = [f"≤, {bounds} of {len(ratios)} not searched to the end"] if bounds else []
    notes += [f"not reached by {never} more seed(s) so far"] if never else []
    return _spread(ratios, lambda value: f"**{value:.3f}**") + (f"; {'; '.join(notes)}" if notes else "")


def _row(cells: list[dict[str, Any]], cell: Cell, name: str, form: str) -> str | None:
    peers = _peers(cells, cell.name, name, form)
    if not peers:
        return None
    warm_peers = _peers(cells, cell.name, name, form, warm=PEERS[name].compiles(form))
    reached = [run for peer in peers if (run := _bimo_run(cells, peer, warm=False)[0])]
    seeds = ", ".join(str(peer["seed"]) for peer in peers)
    untuned = " (not tuned yet)" if form == "tuned" and not all(peer["tuned_by_runs"] for peer in peers) else ""
    ours = f"{reached[0]['parameters'] / 1e6:.2f}M" if reached else "?"
    return _line(
        f"`{cell.name}`",
        PEERS[name].title,
        form + untuned,
        seeds,
        f"{peers[0]['parameters'] / 1e6:.2f}M / {ours}",
        _spread([peer["test"]["bits_per_byte"] for peer in peers], lambda value: f"{value:.3f}"),
        _spread([peer["wall_seconds"] for peer in peers], lambda value: f"{value:.0f} s"),
        _spread([run["wall_seconds"] for run in reached], lambda value: f"{value:.1f} s") if reached else MISSING,
        _spread([run["process_seconds"] for run in reached], lambda value: f"{value:.1f} s") if reached else MISSING,
        _ratio(cells, peers, warm=False),
        _ratio(cells, warm_peers, warm=True) if warm_peers else MISSING,
        f"≤ {GOALS[form]:g}",
    )


def _line(*columns: str) -> str:
    return f"| {' | '.join(columns)} |"


def cost_table(cells: list[dict[str, Any]]) -> str:
    """Wall-clock to each peer's final loss."""
    lines = [
        _line(
            *("cell", "peer", "form", "seeds", "parameters, peer / bimo", "peer's final bpb", "peer's wall-clock"),
            *("bimo to that bpb, cold", "its whole process", "ratio, cold", "ratio, warm cache", "goal"),
        ),
        "|---" * 12 + "|",
    ]
    for cell in CELLS.values():
        rows = [_row(cells, cell, name, form) for form in FORMS for name in PEERS]
        lines += [row for row in rows if row]
        if not any(rows):
            lines.append(_line(f"`{cell.name}`", *[MISSING] * 11))
    return "\n".join(lines) + "\n"


def processor(machine: dict[str, Any]) -> str:
    """Its name, and its instructions for bfloat16 where they were recorded."""
    name, instructions = machine["processor"], machine.get("bfloat16")
    return f"{name} ({', '.join(instructions) or 'without bfloat16'})" if instructions is not None else name


def machines(cells: list[dict[str, Any]]) -> str:
    """Which processors the runs of each cell were on, with their instructions for bfloat16."""
    found: dict[str, Counter[str]] = {}
    for one in cells:
        found.setdefault(one["cell"], Counter())[processor(one["machine"])] += 1
    lines = [
        f"`{cell}`: {', '.join(f'{n} on {who}' for who, n in found[cell].items())}" for cell in CELLS if cell in found
    ]
    return f"Runs, bimo's and the peers': {'; '.join(lines)}.\n"


def _ours(cells: list[dict[str, Any]], cell: str) -> list[dict[str, Any]]:
    """Bimo's cold runs of a cell, all of them: on a noisy machine the median of many is the steadiest speed."""
    runs = [run for run in cells if (run["peer"], run["cell"], run["warm"]) == ("bimo", cell, False)]
    return [run for run in runs if run.get("tokens_per_second")]


def speed_table(cells: list[dict[str, Any]]) -> str:
    """Tokens a second and peak memory, from the same runs."""
    lines = [
        _line(
            *("cell", "peer", "form", "peer's tokens/s", "bimo's tokens/s", "ratio", "goal"),
            *("peer's peak memory", "bimo's", "ratio", "goal"),
        ),
        "|---" * 11 + "|",
    ]
    for cell in CELLS.values():
        ours = _ours(cells, cell.name)
        for form in FORMS:
            for name in PEERS:
                peers = [one for one in _peers(cells, cell.name, name, form) if one["tokens_per_second"]]
                if ours and peers:
                    lines.append(_speed_row(cell, ours, peers, name, form))
    return "\n".join(lines) + "\n" if len(lines) > 2 else f"Tokens/s and memory: {MISSING}.\n"


def _speed_row(cell: Cell, ours: list[dict[str, Any]], peers: list[dict[str, Any]], name: str, form: str) -> str:
    speed, our_speed = (statistics.median(run["tokens_per_second"] for run in runs) for runs in (peers, ours))
    memory, our_memory = (statistics.median(run["peak_memory_bytes"] for run in runs) for runs in (peers, ours))
    batches = {peer["settings"]["batch"] for peer in peers}
    same_batch = batches == {run["settings"]["batch"]["size"] for run in ours}
    trainer = PEERS[name].module == "hf" and same_batch
    return _line(
        *(f"`{cell.name}`", PEERS[name].title, form, f"{speed:,.0f}", f"{our_speed:,.0f}"),
        *(f"**{our_speed / speed:.2f}**", f"≥ {SPEED_GOALS[form]:g}"),
        *(f"{memory / 1e9:.2f} GB", f"{our_memory / 1e9:.2f} GB"),
        f"**{our_memory / memory:.2f}**" + ("" if same_batch else ", other batch"),
        f"≤ {MEMORY_GOAL:g}" if trainer else "",
    )


def replace_between(page: Path, name: str, content: str) -> None:
    """Put ``content`` between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a page."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    assert begin in text and end in text, f"{page} has no place for {name}"
    before, _, rest = text.partition(begin)
    files.write_text(page, before + begin + content + end + rest.partition(end)[2])
