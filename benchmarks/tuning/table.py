"""The finished cells as Markdown: speeds, memory and quality, and ratios beside their goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.tuning.cells import CELLS, FORMS, MEMORY_GOAL, PEERS, SPEED_GOAL
from bimo import files

MISSING = "not measured yet"
HEAD = (
    "| cell | peer | form | examples/s, peer / bimo | ratio | with start-up | ratio | by processor time, ratio "
    "| peak memory | ratio | held-out loss, peer / bimo | goals |"
)
Round = dict[str, dict[str, Any]]


def table(folder: Path) -> str:
    """All cells; those that are missing are named."""
    lines = [HEAD, "|---" * 12 + "|"]
    for name in CELLS:
        found = [path for path in (folder / f"{name}-{number}.json" for number in range(100)) if path.exists()]
        rounds: list[Round] = [files.read_json(path)["runs"] for path in found]
        forms = [form for form in FORMS if any(form in one for one in rounds)]
        lines += [_row(name, form, [one for one in rounds if form in one]) for form in forms]
        if not forms:
            lines.append(f"| `{name}` | {PEERS[name]} |" + f" {MISSING} |" * 10)
    return "\n".join([*lines, "", _machine(folder), ""])


def _row(name: str, form: str, rounds: list[Round]) -> str:
    def middle(of: Callable[[dict[str, Any]], float]) -> tuple[float, float, float]:
        """Medians of the peer's and of bimo's, and of the ratios of bimo to the peer round by round."""
        pairs = [(of(one[form]), of(one["bimo"])) for one in rounds]
        theirs, ours = zip(*pairs, strict=True)
        return statistics.median(theirs), statistics.median(ours), statistics.median(b / a for a, b in pairs)

    steps = middle(lambda one: one["step_examples"] / one["step_seconds"])
    whole = middle(lambda one: one["examples"] / one["saved_seconds"])
    processor = middle(lambda one: one["step_examples"] / one["step_processor_seconds"])
    memory = middle(lambda one: one["peak_memory_bytes"] / 1e9)
    loss = middle(lambda one: one["held_out"]["loss"])
    columns = (
        f"`{name}`",
        PEERS[name],
        f"{form}, {len(rounds)} round{'s' if len(rounds) > 1 else ''}",
        f"{steps[0]:.2f} / {steps[1]:.2f}",
        f"**{steps[2]:.2f}**",
        f"{whole[0]:.2f} / {whole[1]:.2f}",
        f"{whole[2]:.2f}",
        f"{processor[2]:.2f}",
        f"{memory[0]:.2f} / {memory[1]:.2f} GB",
        f"**{memory[2]:.2f}**",
        f"{loss[0]:.3f} / {loss[1]:.3f}",
        f"≥ {SPEED_GOAL:g}, ≤ {MEMORY_GOAL:g}",
    )
    return f"| {' | '.join(columns)} |"


def _machine(folder: Path) -> str:
    """What the cells were measured on, and whether something else ran there."""
    facts = [files.read_json(path)["machine"] for path in sorted(folder.glob("*.json"))]
    if not facts:
        return f"Speed and memory: {MISSING}."
    loads = [one["load"] for one in facts]
    first = facts[0]
    return (
        f"{first['processor']}, {first['threads']} threads; load {min(loads):.1f} to {max(loads):.1f} before a round."
    )
