"""The coach, on curves made for each of its verdicts."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bimo.report.coach import Advice, advise, spikes
from bimo.run import Run

CHINESE = re.compile("[\u4e00-\u9fff]")
TOKENS = 1_000  # a step
Curve = Callable[[float], float]


def falling(step: float) -> float:
    return 1.9 + 1.6 * (1 + step / 10) ** -0.9


def still_falling(step: float) -> float:
    return 1.2 + 2.4 * (1 + step / 10) ** -0.3


def curves(
    training: Curve, validation: Curve, *, steps: int = 1_000, every: int = 50, noise: float = 0.02
) -> list[dict[str, Any]]:
    chance = random.Random(5)
    found = []
    for step in range(1, steps + 1):
        bits = training(step) + chance.gauss(0, noise)
        record: dict[str, Any] = {
            "step": step,
            "loss": 2 * bits,
            "bits_per_byte": bits,
            "tokens": TOKENS * step,
            "learning_rate": 0.01,
            "learning_rate_multiplier": 0.5,
        }
        if step % every == 0:
            record["validation_bits_per_byte"] = validation(step)
        found.append(record)
    return found


def lineage(
    repeats: float = 1.0, steps: int = 1_000, status: str = "finished", events: tuple[str, ...] = (), **choices: float
) -> dict[str, Any]:
    """A run in which the text is read ``repeats`` times in ``steps`` steps."""
    return {
        "status": status,
        "events": list(events),
        "data": {"train": {"bytes": 3 * TOKENS * steps / repeats}},
        "tokenizer": {"bytes_per_token": 3.0},
        "plan": {"choices": [{"key": f"model.{key}", "value": value} for key, value in choices.items()]},
    }


def turning(step: float) -> float:
    """Falls to 2.0 at step 500, rises after it."""
    return 2.0 + (abs(step - 500) / 500) ** 2 * (1.2 if step < 500 else 0.4)


def overfitted(**choices: float) -> Advice:
    return advise(curves(lambda step: falling(step) - step / 1_000, turning), lineage(14, **choices))


def test_healthy() -> None:
    advice = advise(curves(falling, lambda step: falling(step) + 0.1), lineage(0.9))
    assert advice.verdict == "healthy" and advice.turned is None
    assert "larger model" in advice.action.en and "No overfitting" in advice.gap.en


def test_healthy_on_a_text_read_often_asks_for_text() -> None:
    advice = advise(curves(falling, lambda step: falling(step) + 0.1), lineage(9))
    assert advice.verdict == "healthy" and "add more text" in advice.action.en


@pytest.mark.parametrize("offset", [-0.4, 0.1, 0.6])
def test_the_gap_of_the_first_reading_is_no_overfitting(offset: float) -> None:
    """Dropout puts training above validation, a harder text below it: neither is a sign."""
    advice = advise(curves(falling, lambda step: falling(step) + offset), lineage(3))
    assert advice.verdict == "healthy" and "No overfitting" in advice.gap.en


def test_overfitted() -> None:
    advice = overfitted(width=256, dropout=0.2)
    assert advice.verdict == "overfitted" and advice.turned == 500
    assert advice.headline.en == "Validation turned at step 500: the text is read 14 times."
    assert advice.action.en == "A model half as wide would probably do as well: --set model.width=128."
    assert "wide gap" in advice.gap.en and "差距大" in advice.gap.zh
    assert any("14 times" in one.en for one in advice.evidence)


def test_dropout_comes_before_a_smaller_model_and_text_after_both() -> None:
    assert overfitted(width=256, dropout=0.0).action.en == "Try more dropout: --set model.dropout=0.1."
    assert overfitted(width=256, dropout=0.1).action.en == "Try more dropout: --set model.dropout=0.2."
    assert overfitted(width=64, dropout=0.2).action.en == "More text would help most."
    assert overfitted().action.en == "More text would help most."


def test_what_was_pinned_is_known_from_the_configuration() -> None:
    records = curves(lambda step: falling(step) - step / 1_000, turning)
    advice = advise(records, lineage(14, width=512), {"model": {"width": 256, "dropout": 0.2}})
    assert advice.action.en.endswith("--set model.width=128.")
    assert advise(records, lineage(14), {"model": {"dropout": 0}}).action.en.endswith("--set model.dropout=0.1.")


def test_overfitted_on_new_text_says_where_to_stop() -> None:
    advice = advise(curves(lambda step: falling(step) - step / 1_000, turning), lineage(2, width=256, dropout=0.0))
    assert advice.verdict == "overfitted" and advice.action.en == "Stopping there would do as well: --set steps=500."


def test_memorising() -> None:
    advice = advise(curves(lambda step: falling(step) - step / 2_000, falling), lineage(8, dropout=0.0))
    assert advice.verdict == "memorising" and "dropout" in advice.action.en


def test_undertrained() -> None:
    records = curves(still_falling, still_falling)
    advice = advise(records, lineage(0.4))
    assert advice.verdict == "undertrained"
    assert advice.sentence.en.endswith("only 40% of the text was read. A longer budget would still pay.")
    assert advise(records, lineage(2.5)).sentence.en.count("read only 2.5 times") == 1
    assert advise(records, lineage(0.4, status="running")).verdict == "learning"
    assert advise(records, lineage(9)).verdict == "healthy"  # the same text again would not pay


def test_diverged() -> None:
    def lost(step: float) -> float:
        return falling(step) if step < 700 else falling(step) + (step - 700) / 150

    advice = advise(curves(lost, lost), lineage())
    assert advice.verdict == "diverged"
    assert advice.action.en == "Try a lower learning rate: --set optimizer.learning_rate=0.006."  # 0.3 x the peak
    event = "step 7: Training diverged at step 7: the loss is not finite."
    assert advise(curves(falling, falling), lineage(events=(event,))).verdict == "diverged"
    ended = [*curves(falling, falling), {"step": 1_001, "loss": math.nan, "bits_per_byte": math.nan}]
    assert advise(ended, lineage()).verdict == "diverged"


def test_noisy() -> None:
    def leaping(step: float) -> float:
        return falling(step) * (1.5 if step % 60 == 0 else 1.0)

    advice = advise(curves(leaping, falling), lineage())
    assert advice.verdict == "noisy" and "last at step 960" in advice.headline.en
    assert advice.action.en == "Try a lower learning rate: --set optimizer.learning_rate=0.01."
    assert any(one.en.startswith("loss spikes: ") for one in advice.evidence)


def test_a_leap_counts_once_and_noise_is_none() -> None:
    chance = random.Random(1)
    calm = [(step, 2 + chance.gauss(0, 0.05)) for step in range(400)]
    assert spikes(calm) == []
    leapt = [(step, value + (1.0 if 200 <= step < 205 else 0.0)) for step, value in calm]
    assert spikes(leapt) == [200]


@pytest.mark.parametrize("status", ["finished", "running"])
def test_too_short_to_say(status: str) -> None:
    for records in (
        [],
        [{"step": 1}],
        curves(falling, falling, steps=150),
        curves(falling, falling, steps=15, every=2),
    ):
        advice = advise(records, lineage(status=status))
        assert advice.verdict == "short"
        assert ("budget" in advice.action.en) == (status == "finished")


def test_stopped_early_with_a_small_gap_is_a_full_model() -> None:
    def plateau(step: float) -> float:
        return max(falling(step), falling(300))

    event = "step 600: stopped early, validation has not improved since step 300"
    advice = advise(curves(plateau, plateau, steps=600), lineage(2, events=(event,), width=128))
    assert advice.verdict == "flat" and advice.action.en == "Try a wider model: --set model.width=192."
    advice = advise(curves(lambda s: falling(s) - s / 1_000, turning), lineage(14, events=(event,), dropout=0.0))
    assert advice.verdict == "overfitted"


def test_lines_without_numbers_are_passed_over() -> None:
    records = curves(falling, lambda step: falling(step) + 0.1)
    for record in records[100:130]:
        record["bits_per_byte"] = math.nan
    records[60]["validation_bits_per_byte"] = math.inf
    records[300] = {"step": None, "bits_per_byte": "much"}
    records[400] = {"note": "no step"}
    assert advise(records, lineage(0.9)).verdict == "healthy"


def test_a_last_line_that_was_cut(tmp_path: Path) -> None:
    run = Run(tmp_path)
    lines = [json.dumps(record) for record in curves(falling, lambda step: falling(step) + 0.1)]
    run.metrics.write_text("\n".join(lines)[:-20], encoding="utf-8")
    assert len(run.read_metrics()) == 999 and advise(run.read_metrics(), lineage(0.9)).verdict == "healthy"


@pytest.mark.parametrize("values", [{}, {"events": 3, "plan": [], "data": "x"}, {"plan": {"choices": [3, {}]}}])
def test_any_lineage_is_enough(values: dict[str, Any]) -> None:
    assert advise(curves(falling, lambda step: falling(step) + 0.1), values).verdict in ("healthy", "learning")


def test_everything_is_said_in_both_languages() -> None:
    every = [
        overfitted(width=256, dropout=0.2),
        overfitted(dropout=0.0),
        advise([], {}),
        advise(curves(falling, falling), lineage()),
        advise(curves(still_falling, still_falling), lineage(0.4)),
    ]
    for advice in every:
        for words in (advice.headline, advice.gap, advice.action, advice.sentence, *advice.evidence):
            assert words.en and CHINESE.search(words.zh) and not CHINESE.search(words.en)
