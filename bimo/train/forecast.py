"""What a planned training will take and give, before step 1; and how wrong that was, at its end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bimo.device import peak_memory, resident_memory
from bimo.evaluate.baselines import MOST_TOKENS
from bimo.evaluate.likelihood import ROWS_AT_ONCE, logits_of
from bimo.models import count_parameters
from bimo.models.ngram import MAX_ORDER
from bimo.train.anchor import Anchor
from bimo.train.budget import seconds_of_budget
from bimo.train.build import StepCost, in_float32
from bimo.train.checkpoint import KEPT
from bimo.train.config import TrainConfig
from bimo.train.materials import Materials
from bimo.train.plan import between_steps
from bimo.train.predict import Forecast, predict
from bimo.train.probe import active_parameters

if TYPE_CHECKING:
    from bimo.models import Model

SCORED_FLOPS = 1e10  # at most, of one measured forward pass: of a large model it has fewer rows than scoring takes
COUNTING_MARGIN = 1.2  # the n-grams of a whole text fall out of the processor's cache
XZ_BYTES_A_SECOND = 1.5e6
LOADING_SECONDS, RECORDS_SECONDS = 0.3, 0.5  # of the best weights; lineage, card and report
SCORING_SHARE, FEWEST_SCORED = 0.1, 50_000  # of a budget that measuring the test text takes at most; but so many tokens
RECORD_BYTES, REPORT_BYTES = 240, 130_000  # of one step in metrics.jsonl; of report, card and lineage
NGRAM_BYTES = 92  # of memory for each token that the n-grams of the baseline are counted in, times the variety
WATTS_A_CORE, WATTS_AT_REST, WATTS_A_GPU = 9.0, 15.0, 350.0  # guesses, where nobody says


@dataclass(frozen=True)
class Prediction:
    """Predicted figures of a whole run.

    Attributes:
        parts: seconds of wall-clock time by what they are spent on, in order.
        training_seconds: in the training loop, its pauses included.
        peak_memory_bytes: of the process.
        disk_bytes: of the run directory at the end.
        bits_per_byte: of held-out text.
    """

    parts: Mapping[str, float]
    training_seconds: float
    peak_memory_bytes: int
    disk_bytes: int
    bits_per_byte: Forecast

    @property
    def wall_seconds(self) -> float:
        """The whole, from the start of the command."""
        return sum(self.parts.values())

    def values(self) -> dict[str, Any]:
        """Plain values for the lineage."""
        return {
            "wall_seconds": round(self.wall_seconds, 1),
            "parts": {name: round(seconds, 1) for name, seconds in self.parts.items()},
            "training_seconds": round(self.training_seconds, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "disk_bytes": self.disk_bytes,
            "bits_per_byte": {name: round(value, 4) for name, value in asdict(self.bits_per_byte).items()},
        }


def foresee(
    config: TrainConfig,
    materials: Materials,
    anchor: Anchor,
    model: Model,
    folder: Path,
    *,
    step: StepCost,
    spent: Mapping[str, float],
    closing: float,
) -> Prediction:
    """Predict everything about a complete configuration.

    Args:
        folder: of the run, with tokenizer, token shards and test documents already in it.
        spent: seconds until now, by part.
        closing: seconds from the last step to the end.
    """
    assert config.steps and config.batch.size and config.model.context and config.checkpoint_every
    assert config.model.width and config.model.layers and config.evaluate_every
    batch_tokens = config.batch.size * config.model.context
    total, inner = count_parameters(model)
    saving = 0.0  # its share is small, and the early correction of the schedule knows it
    pauses = between_steps(config.steps, batch_tokens, materials.validation.count, saving)
    training = config.steps * step.seconds * (1 + pauses)
    active = active_parameters(config.model.width, config.model.layers, anchor.vocab_size)
    by_the_clock = math.isfinite(seconds_of_budget(config.budget))  # each change of such a schedule is saved
    checkpoints = KEPT if by_the_clock else min(KEPT, -(-config.steps // config.checkpoint_every))
    state = 4 * (2 * inner if config.optimizer.name == "muon" else 3 * inner) + 12 * (total - inner)
    disk = size_of(folder) + 4 * total + checkpoints * state + RECORD_BYTES * config.steps + REPORT_BYTES
    return Prediction(
        parts={**spent, "training": training, "measuring at the end": closing},
        training_seconds=training,
        peak_memory_bytes=_peak(materials, total, step.memory, anchor.variety),
        disk_bytes=disk,
        bits_per_byte=predict(anchor, active, config.steps * batch_tokens, from_pairs=config.model.initial == "bigram"),
    )


def _peak(materials: Materials, parameters: int, learning: int, variety: float) -> int:
    """The most memory of the process: until now, while it learns, or at the end, when n-grams are counted."""
    counted = materials.train.count if materials.train.count <= MOST_TOKENS else 0
    at_the_end = 4 * parameters + round(NGRAM_BYTES * variety * counted)  # the best weights are loaded beside the last
    return max(peak_memory(), resident_memory() + max(learning, at_the_end))


@dataclass(frozen=True)
class Closing:
    """What comes after the last step.

    Attributes:
        fixed: seconds that are spent in any case: simpler models are counted, the run is written.
        scoring: seconds that measuring the whole test text would take.
        share: of that text that is measured.
    """

    fixed: float
    scoring: float
    share: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.fixed + self.share * self.scoring


def plan_closing(
    model: Model, config: TrainConfig, materials: Materials, counting_seconds: float, budget: float | None
) -> Closing:
    """How long measuring the test text and the simpler models will take: a forward pass is timed for it.

    Where that is a larger part of the budget than it should be, a share of the documents will have to do.

    Args:
        counting_seconds: for one token of one order of an n-gram.
        budget: seconds of the whole, where it is a time.
    """
    assert config.model.context
    facts, context = materials.facts["test"], config.model.context
    tokens = facts["bytes"] / (materials.train.bytes / materials.train.count)
    length = tokens / max(1, facts["documents"])
    overlap = 1.0 if length <= context else 2.0 - context / length  # windows of long documents cover them twice
    fixed = LOADING_SECONDS + RECORDS_SECONDS
    scoring = overlap * tokens * _scoring_seconds(model, context) + facts["bytes"] / XZ_BYTES_A_SECOND
    if materials.train.count <= MOST_TOKENS:
        fixed += MAX_ORDER * counting_seconds * (COUNTING_MARGIN * materials.train.count + materials.validation.count)
        scoring += MAX_ORDER * counting_seconds * 2 * tokens
    share = 1.0
    if budget is not None and scoring > SCORING_SHARE * budget:
        share = min(1.0, max(SCORING_SHARE * budget / scoring, FEWEST_SCORED / tokens))
    return Closing(fixed, scoring, share)


def _scoring_seconds(model: Model, context: int) -> float:
    """Seconds a token of a float32 forward pass, logits included."""
    rows = max(1, min(ROWS_AT_ONCE, round(SCORED_FLOPS / (model.forward_flops(context) * context))))
    ids = torch.zeros(rows, context, dtype=torch.int64, device=model.output_weight.device)
    training = model.training
    model.eval()
    taken = []
    with torch.no_grad(), in_float32(model):
        for _ in range(2):
            began = time.perf_counter()
            for logits, _ in logits_of(model, model.hidden(ids).flatten(0, 1), ids.flatten()):
                float(logits.logsumexp(-1).sum())  # waits for the device
            taken.append(time.perf_counter() - began)
    model.train(training)
    return min(taken) / (rows * context)


def errors(predicted: Mapping[str, Any], actual: Mapping[str, float]) -> dict[str, float]:
    """Relative errors: 0.1 where a tenth too much was predicted.

    Args:
        predicted: of :meth:`Prediction.values`.
        actual: under the same names; zeros are left out.
    """
    found = {}
    for name, value in actual.items():
        expected = predicted.get(name)
        number = expected.get("value") if isinstance(expected, Mapping) else expected
        if number is not None and value:
            found[name] = round(number / value - 1, 4)
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def power(config: TrainConfig) -> float:
    """A guess at the watts that training draws."""
    if config.device == "cuda":
        return WATTS_AT_REST + WATTS_A_GPU
    return WATTS_AT_REST + WATTS_A_CORE * min(config.threads or 1, os.cpu_count() or 1)


def lines(prediction: Prediction, config: TrainConfig, prices: Prices) -> Iterable[tuple[str, str, str]]:
    """What is predicted, as (what, value, of what it is made)."""
    parts = ", ".join(f"{name} {clock(seconds)}" for name, seconds in prediction.parts.items())
    yield "wall-clock", clock(prediction.wall_seconds), parts
    yield "peak memory", f"{prediction.peak_memory_bytes / 1e6:,.0f} MB", "of this process, libraries included"
    yield "disk", f"{prediction.disk_bytes / 1e6:,.1f} MB", "the run directory: text, model and checkpoints"
    watts = prices.watts or power(config)
    energy = watts * prediction.wall_seconds / 3600
    said = "as given" if prices.watts else "a guess; --watts says better"
    cost = f", {energy / 1000 * prices.kwh:.4f} at {prices.kwh:g} a kWh" if prices.kwh else ""
    yield "electricity", f"{energy:,.2f} Wh", f"{watts:.0f} W, {said}{cost}"
    if prices.hour:
        rent = prices.hour * prediction.wall_seconds / 3600
        yield "rent", f"{rent:,.4f}", f"at {prices.hour:g} an hour"
    bits = prediction.bits_per_byte
    value = f"{bits.value:.3f} bits per byte"
    yield "held-out text", value, f"95%: {bits.low:.3f} to {bits.high:.3f}"


@dataclass(frozen=True)
class Prices:
    """What the user pays; None where nothing was said.

    Attributes:
        watts: drawn while training.
        kwh: price of a kilowatt-hour.
        hour: price of an hour of this machine.
    """

    watts: float | None = None
    kwh: float | None = None
    hour: float | None = None


def clock(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


NAMES = {
    "wall_seconds": "wall-clock",
    "training_seconds": "training time",
    "peak_memory_bytes": "peak memory",
    "disk_bytes": "disk",
    "bits_per_byte": "bits per byte",
}


def scored(found: Mapping[str, float]) -> str:
    """The errors of a plan in one line."""
    return ", ".join(f"{NAMES[name]} {error:+.1%}" for name, error in found.items() if name in NAMES)
