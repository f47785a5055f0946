"""Learning from preferences: batches of pairs or of rated answers, their reference, and the loss of a batch.

Shapes: B rows, S answers of the fullest row, P pairs of all rows, U units of all data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bimo.train.objective import label_nats
from bimo.tune import preference
from bimo.tune.answers import AnswerBatch, answer_batch, by_answer, lengths
from bimo.tune.examples import Example
from bimo.tune.packing import PackedExamples, Rows, pack

Method: TypeAlias = Literal["dpo", "ipo", "orpo", "kto"]
LogProbs: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Objective:
    """Which loss, and its numbers.

    Attributes:
        method: the first three learn from pairs, kto from single rated answers; orpo needs no reference.
        beta: how dear it is to move away from the reference; of orpo, the weight of the odds.
        smoothing: dpo's share of pairs that are the wrong way round.
        weights: kto's, of desirable and undesirable answers.
    """

    method: Method = "dpo"
    beta: float = 0.1
    smoothing: float = 0.0
    weights: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Unit:
    """Two answers that are looked at together.

    Attributes:
        first: the chosen answer; or one that was rated.
        second: the rejected answer to the same prompt; or what was answered to another one.
        desirable: how the first was rated; None for a pair.
    """

    first: Example
    second: Example
    desirable: bool | None = None

    @property
    def size(self) -> int:
        """Positions that it takes in a row: a pair stands in one row, a rated answer and its other in two."""
        sizes = self.first.size, self.second.size
        return sum(sizes) if self.desirable is None else max(sizes)

    @property
    def learned(self) -> int:
        """Labels that count."""
        return self.first.learned + self.second.learned


@dataclass(frozen=True)
class UnitBatch(AnswerBatch):
    """Units: of pairs, answers 2i and 2i + 1 of a row; of rated answers, answer i of the rows 2r and 2r + 1.

    Attributes:
        reference: float32 (B, S), the log-probability of each answer before training.
        desirable: bool (B, S), how it was rated.
        whole_desirable: (B,) int64, everywhere how many were rated so in the undivided batch.
    """

    reference: Tensor
    desirable: Tensor
    whole_desirable: Tensor


class Units(PackedExamples):
    """Endless batches of whole units; see :class:`bimo.tune.packing.PackedExamples`.

    Args:
        reference: float32 (U, 2), what the reference model makes of each answer.
    """

    def __init__(self, units: Sequence[Unit], reference: LogProbs, *, batch_size: int, length: int, seed: int) -> None:
        super().__init__(units, batch_size=batch_size, length=length, seed=seed)  # type: ignore[arg-type]
        self._units, self._reference = units, reference

    def _laid_out(self, rows: Rows) -> UnitBatch:
        return unit_batch(self._units, self._reference, rows, self.length)


def units_once(units: Sequence[Unit], reference: LogProbs, batch_size: int, length: int) -> list[UnitBatch]:
    """Every unit once, in a fixed order; the last batch may have fewer rows."""
    rows = pack([unit.size for unit in units], length)
    parts = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    return [unit_batch(units, reference, part, length) for part in parts]


def unit_batch(units: Sequence[Unit], reference: LogProbs, rows: Rows, length: int) -> UnitBatch:
    """The batch of these rows of units."""
    examples = [example for unit in units for example in (unit.first, unit.second)]
    if units[0].desirable is None:
        places = [[2 * unit + side for unit in row for side in (0, 1)] for row in rows]
    else:
        places = [[2 * unit + side for unit in row] for row in rows for side in (0, 1)]
    batch = answer_batch(examples, places, length)
    known, rated = torch.zeros(batch.answers.shape), torch.zeros_like(batch.answers)
    rows_at, answers_at = batch.answers.nonzero(as_tuple=True)
    flat = np.array([place for row in places for place in row], dtype=np.int64)
    known[rows_at, answers_at] = torch.from_numpy(np.asarray(reference).reshape(-1)[flat])
    rated[rows_at, answers_at] = torch.tensor([bool(units[place // 2].desirable) for place in flat])
    desirable = torch.full((len(places),), sum(bool(units[unit].desirable) for row in rows for unit in row))
    return UnitBatch(**vars(batch), reference=known, desirable=rated, whole_desirable=desirable)


@torch.no_grad()
def reference_of(model: Any, units: Sequence[Unit], batch_size: int, length: int) -> LogProbs:
    """The log-probabilities (U, 2) that the model gives to the answers as it is, in nats."""
    result = np.zeros((len(units), 2), dtype=np.float32)
    device = model.output_weight.device
    sides = [example for unit in units for example in (unit.first, unit.second)]
    rows = pack([example.size for example in sides], length)
    for at in range(0, len(rows), batch_size):
        part = rows[at : at + batch_size]
        batch = answer_batch(sides, part, length).to(device)
        assert isinstance(batch, AnswerBatch)
        found = by_answer(batch, -label_nats(model, batch))[batch.answers]
        result.reshape(-1)[[place for row in part for place in row]] = found.cpu().numpy()
    return result


def unit_loss(model: Any, batch: UnitBatch, objective: Objective) -> tuple[Tensor, dict[str, float]]:
    """The mean loss of the units, and what the answers are worth to the policy: its implicit rewards.

    Figures: ``reward_chosen``, ``reward_rejected``, their difference ``reward_margin``; ``accuracy``, the share of
    pairs in which the chosen answer is rewarded more; ``logprob_chosen``, ``logprob_rejected`` of the policy. Of rated
    answers chosen means desirable, and there is ``kl`` instead of ``accuracy`` and ``reward_margin``.
    """
    return (_rated_loss if objective.method == "kto" else _pair_loss)(model, batch, objective)


def _pair_loss(model: Any, batch: UnitBatch, objective: Objective) -> tuple[Tensor, dict[str, float]]:
    policy, reference, sizes = (
        values[batch.answers].view(-1, 2)  # (P, 2)
        for values in (by_answer(batch, -label_nats(model, batch)), batch.reference, lengths(batch))
    )
    if objective.method == "orpo":
        means = policy / sizes
        losses = objective.beta * preference.odds_ratio_loss(means) - means[:, 0]
        rewards = objective.beta * means
    elif objective.method == "ipo":
        losses = preference.ipo(policy, reference, sizes, objective.beta)
        rewards = preference.implicit_rewards(policy, reference, objective.beta)
    else:
        rewards = preference.implicit_rewards(policy, reference, objective.beta)
        losses = preference.dpo(rewards, objective.smoothing)
    figures = {
        "reward_chosen": rewards[:, 0],
        "reward_rejected": rewards[:, 1],
        "reward_margin": rewards[:, 0] - rewards[:, 1],
        "accuracy": (rewards[:, 0] > rewards[:, 1]).float(),
        "logprob_chosen": policy[:, 0],
        "logprob_rejected": policy[:, 1],
    }
    return batch.mean(losses, each=2), {
        name: batch.mean(value.detach(), each=2).item() for name, value in figures.items()
    }


def _rated_loss(model: Any, batch: UnitBatch, objective: Objective) -> tuple[Tensor, dict[str, float]]:
    rated, others = batch.each(lambda tensor: tensor[0::2]), batch.each(lambda tensor: tensor[1::2])
    with torch.no_grad():
        moved = by_answer(others, -label_nats(model, others)) - others.reference
    baseline = preference.kto_baseline(objective.beta * moved[others.answers])
    policy = by_answer(rated, -label_nats(model, rated))[rated.answers]  # (U,)
    rewards = preference.implicit_rewards(policy, rated.reference[rated.answers], objective.beta)
    desirable = rated.desirable[rated.answers]
    losses = preference.kto(rewards, desirable, baseline, objective.weights)
    figures = {"kl": batch.mean((baseline / objective.beta).expand_as(rewards), each=2).item()}
    whole = int(batch.whole_desirable[0])
    for name, which, count in (
        ("chosen", desirable, whole),
        ("rejected", ~desirable, int(batch.whole_answers[0]) // 2 - whole),
    ):
        if count:
            for what, values in (("reward", rewards), ("logprob", policy)):
                figures[f"{what}_{name}"] = batch.total(values.detach()[which]).item() / count
    return batch.mean(losses, each=2), figures
