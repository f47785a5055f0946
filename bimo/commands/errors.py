"""``bimo errors``: where a model is wrong."""

from __future__ import annotations

import dataclasses
import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo.commands.results import print_json, print_table, visible, with_interval
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.evaluate.mistakes import Judged, Mistakes

SHOWN = 160  # characters of a text


def errors(run: Path, /, *, task: list[str] | None = None, worst: int = 10, json: bool = False) -> None:
    """Show where a model is wrong in the tasks it did.

    Reads the answers that `bimo eval RUN --task` kept; the model is not loaded.

        bimo errors runs/smollm2
        bimo errors runs/smollm2 --task boolq --worst 30

    Args:
        run: a run directory or a Hugging Face folder
        task: a task that it has done, can be given several times; all of them if not given
        worst: how many answers to show
        json: print JSON, with every answer
    """
    from bimo.evaluate.mistakes import evaluated, find_mistakes

    if worst < 0:
        raise UsageError("--worst is wrong.", expected="a number from 0", got=str(worst))
    found = {name: find_mistakes(run, name) for name in task or evaluated(run)}
    if json:
        print_json({name: _facts(mistakes) for name, mistakes in found.items()})
        return
    for place, (name, mistakes) in enumerate(found.items()):
        print("\n" if place else "", end="")
        _print(name, mistakes, worst)


def _facts(mistakes: Mistakes) -> dict[str, Any]:
    return {
        "metric": mistakes.metric.name,
        "slices": [dataclasses.asdict(one) for one in mistakes.slices],
        "answers": [dataclasses.asdict(one) for one in mistakes.judged],
    }


def _print(name: str, mistakes: Mistakes, worst: int) -> None:
    metric = mistakes.metric.name
    print(f"{name}: {len(mistakes.judged):,} answers, {metric} of each kind of example\n")
    columns = ("kind", "of example", "number", metric)
    rows = [(one.kind, visible(one.value), f"{one.count:,}", with_interval(one.measured)) for one in mistakes.slices]
    print_table(columns, rows, right=("number",))
    if worst:
        print(f"\nThe worst {min(worst, len(mistakes.judged)):,}:")
    for one in mistakes.judged[:worst]:
        print(f"\n{one.id}  {metric} {one.score:.3f}")
        print_table(("", ""), _shown(one))


def _shown(one: Judged) -> list[tuple[str, str]]:
    """The row, what was wanted, and what came."""
    rows = [(f"  {key}", _cut(value)) for key, value in one.row.items()]
    rows.append(("  wanted", _cut(one.reference)))
    got = {key: value for key, value in one.prediction.items() if key != "logprobs"}
    if "probabilities" in got:
        chances = got.pop("probabilities")
        chosen = got.pop("label")
        got.pop("label_norm")
        got["got"] = f"{chosen} ({chances[chosen]:.0%}; wanted {chances[one.reference]:.0%})"
    return rows + [(f"  {key}", _cut(value)) for key, value in got.items()]


def _cut(value: Any) -> str:
    text = visible(value if isinstance(value, str) else json_text.dumps(value, ensure_ascii=False))
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
