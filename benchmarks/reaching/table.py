"""The finished cells as Markdown: figures beside their baselines and goals, and what is missing said so."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reaching.rows import RESULTS, ROWS, Row
from bimo import files

MINUTES = 15.0  # that a single run may take


def read_cells() -> dict[str, list[dict[str, Any]]]:
    """The finished cells of each row, by seed."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for path in sorted(RESULTS.glob("*.json")):
        cell = files.read_json(path)
        found.setdefault(cell["row"], []).append(cell)
    return {name: sorted(cells, key=lambda cell: cell["seed"]) for name, cells in found.items()}


def best_baseline(cell: Mapping[str, Any]) -> float:
    """The highest of the cell's baselines."""
    return max(cell["baselines"].values())


def reached(row: Row, cell: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the goal is met, and what it comes to in this cell."""
    value, before = cell["value"], cell["before"]
    if row.kind == "best":
        ratio = value / best_baseline(cell)
        return ratio >= row.goal, f"{ratio:.2f} x"
    if row.kind == "doubled":
        return value >= row.goal * before and value > before, f"{before:.3f} -> {value:.3f}"
    if row.kind == "smaller":
        return value < before, f"{before:.3f} -> {value:.3f}"
    return value >= row.goal and all(value > one for one in cell["baselines"].values()), f"{value:.3f}"


def _goal(row: Row) -> str:
    return {
        "itself": f">= {row.goal:g}",
        "best": f">= {row.goal:g} x the best",
        "doubled": f">= {row.goal:g} x before",
        "smaller": "lower than before",
    }[row.kind]


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.3f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3f} to {max(values):.3f})"


def _line(row: Row, cells: Sequence[Mapping[str, Any]]) -> str:
    if not cells:
        return f"| {row.name}: {row.what} | {row.start} | | | | {_goal(row)} | not measured yet | |"
    values = [cell["value"] for cell in cells]
    before = [cell["before"] for cell in cells if cell["before"] is not None]
    names = sorted({name for cell in cells for name in cell["baselines"]})
    rivals = "; ".join(
        f"{name} {_spread([cell['baselines'][name] for cell in cells if name in cell['baselines']])}" for name in names
    )
    met = [reached(row, cell)[0] for cell in cells]
    verdict = f"{'**met**' if all(met) else 'MISSED'} ({sum(met)} of {len(met)} seeds)"
    if row.kind == "best":
        verdict += f", {statistics.median(cell['value'] / best_baseline(cell) for cell in cells):.2f} x"
    shown = f"{_spread(values)} {row.figure.removeprefix('test_')}"
    return (
        f"| {row.name}: {row.what} | {row.start} | {shown} | {_spread(before) if before else ''} | {rivals} | "
        f"{_goal(row)} | {verdict} | {_cost(cells)} |"
    )


def _cost(cells: Sequence[Mapping[str, Any]]) -> str:
    """Of a seed on a CPU; and of one on a GPU, where some were measured on one."""

    def middle(what: str, some: Sequence[Mapping[str, Any]], unit: float) -> float:
        return statistics.median(cell["cost"][what] for cell in some) / unit

    on_gpu = [cell for cell in cells if cell["cost"].get("peak_gpu_bytes")]
    on_cpu = [cell for cell in cells if cell not in on_gpu]
    found = []
    if on_cpu:
        minutes, wall = middle("cpu_seconds", on_cpu, 60), middle("wall_seconds", on_cpu, 60)
        found.append(f"{minutes:.1f} ({wall:.1f}) min, {middle('peak_memory_bytes', on_cpu, 1e9):.1f} GB")
    if on_gpu:
        found.append(
            f"{len(on_gpu)} on a GPU: {middle('wall_seconds', on_gpu, 60):.1f} min, "
            f"{middle('peak_gpu_bytes', on_gpu, 1e9):.1f} GB of it"
        )
    return "; ".join(found)


def _pretrained(name: str, one: Mapping[str, Any]) -> str:
    spent = f"{one['cpu_seconds'] / 60:.0f} min of processor time"
    if one.get("peak_gpu_bytes"):
        spent = f"{one['wall_seconds'] / 60:.0f} min on a GPU"
    return f"{name} {one['parameters'] / 1e6:.1f}M parameters, {spent}"


def table() -> str:
    """As docs/benchmarks.md shows it."""
    cells = read_cells()
    head = "task | begun from | bimo | before | baselines | goal | reached | processor time (wall-clock), memory"
    lines = [f"| {head} |", "|" + "---|" * 8, *(_line(row, cells[name]) for name, row in ROWS.items())]
    models: dict[str, Mapping[str, Any]] = {
        cell["start"]: cell["pretraining"] for some in cells.values() for cell in some if cell["pretraining"]
    }
    if models:
        shown = "; ".join(_pretrained(name, one) for name, one in sorted(models.items()))
        lines += ["", f"Pretrained by bimo for these rows, not counted in them: {shown}."]
    return "\n".join([*lines, ""])
