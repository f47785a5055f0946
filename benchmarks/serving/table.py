"""The finished cells as Markdown: speeds, shares of what the machine can, and ratios beside their goals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.cells import COLD_START_GOAL, CONTENDERS, GOALS, MODELS, THREADS, Contender
from bimo import files
from bimo.models import llama

CASES = {"1": "1 request", "8": "8", "32": "32", "prompt": "prompt of 500"}
MISSING = "not measured yet"
Rounds = dict[str, list[dict[str, Any]]]


def table(folder: Path) -> str:
    """All cells; those that are missing are named."""
    parts = [_speeds(folder, model, threads) for model in MODELS for threads in THREADS]
    return "\n".join([*parts, _servers(folder), _qualities(folder)])


def _cell(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / f"{name}.json"
    return files.read_json(path) if path.exists() else None


def _speeds(folder: Path, model: str, threads: int) -> str:
    cell = _cell(folder, f"speed-{model}-{threads}")
    many = f"{threads} thread{'s' if threads > 1 else ''}"
    if cell is None:
        return f"**{model}, {many}**: {MISSING}\n"
    rounds: Rounds = cell["rounds"]
    bandwidth, peak = (statistics.median(one[key] for one in rounds["machine"]) for key in ("bandwidth", "peak"))
    lines = [
        f"**{model}, {many}**; the machine reads {bandwidth / 1e9:.0f} GB/s and multiplies {peak / 1e9:.0f} GFLOP/s",
        "",
        f"| tokens/s | {' | '.join(CASES.values())} | of the bandwidth, 1 request | of the peak, prompt |",
        "|---|" + "---:|" * (len(CASES) + 2),
    ]
    for contender in CONTENDERS:
        found = rounds[contender.name]
        speeds = [f"{_tokens_a_second(found, case):,.0f}{_ratio(rounds, contender, case)}" for case in CASES]
        layers, output = cell["weights"]
        read = (layers + output) * contender.bits / 8
        reading = read / _middle(found, "1", "processor_seconds") * threads / bandwidth
        computing = 2 * layers / _middle(found, "prompt", "processor_seconds") * threads / peak
        lines.append(f"| {contender.name} | {' | '.join(speeds)} | {reading:.0%} | {computing:.0%} |")
    return "\n".join([*lines, ""])


def _middle(found: Sequence[dict[str, Any]], case: str, key: str) -> float:
    return statistics.median(one[case][key] for one in found)


def _tokens_a_second(found: Sequence[dict[str, Any]], case: str) -> float:
    return (1 if case == "prompt" else int(case)) / _middle(found, case, "seconds")


def _ratio(rounds: Rounds, contender: Contender, case: str) -> str:
    """How many times as fast bimo is, round by round, and what is wanted."""
    if not contender.against:
        return ""
    pairs = zip(rounds[contender.against], rounds[contender.name], strict=True)
    ratio = statistics.median(theirs[case]["seconds"] / ours[case]["seconds"] for ours, theirs in pairs)
    goal = GOALS[contender.name, case]
    return f" (bimo {ratio:.2f}×, {'goal' if ratio >= goal else '**missed**'} {goal:g})"


def _servers(folder: Path) -> str:
    lines = [
        f"| server of {MODELS[0]} | threads | cold start (goal {COLD_START_GOAL:g} s) | first token of 500 |",
        "|---|---:|---:|---:|",
    ]
    for threads in THREADS:
        cell = _cell(folder, f"server-{MODELS[0]}-{threads}")
        for name, found in (cell["rounds"] if cell else {MISSING: []}).items():
            shown = [
                f"{statistics.median(one[key] for one in found):.2f} s" if found else ""
                for key in ("cold_start_seconds", "first_token_seconds")
            ]
            lines.append(f"| {name} | {threads} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def _qualities(folder: Path) -> str:
    lines = ["| bits per byte | float32 | bfloat16 | int8 |", "|---|---:|---:|---:|"]
    for model in MODELS:
        cell = _cell(folder, f"quality-{model}")
        if cell is None:
            lines.append(f"| {model} | {MISSING} | | |")
            continue
        found = cell["bits_per_byte"]
        whole = found["float32"]
        shown = [f"{value:.4f} ({value / whole - 1:+.2%})" for value in (found["bfloat16"], found["int8"])]
        lines.append(f"| {model} | {whole:.4f} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def weights_of(config: llama.Config) -> tuple[int, int]:
    """Numbers in the layers' matrices, and in the output layer."""
    C, D = config.hidden_size, config.head_dim
    attention = C * D * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    return config.num_hidden_layers * (attention + 3 * C * config.intermediate_size), config.vocab_size * C
