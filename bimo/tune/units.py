"""Learning from preferences: batches of pairs or of rated answers, their reference, and the loss of a batch.

Shapes: B rows, S answers of the fullest row, P pairs of all rows, U units of all data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bimo.train.objective import label_nats
from bimo.tune import preference
from bimo.tune.answers import AnswerBatch, answer_batch, by_answer, lengths
from bimo.tune.examples import Example, example
from bimo.tune.packing import PackedExamples, Rows, pack

Method: TypeAlias = Literal["dpo", "ipo", "orpo", "kto"]
UNKNOWN = (math.nan, math.nan)


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


@dataclass(frozen=True, eq=False)
class Unit(Example):
    """Two answers that are looked at together, one after the other: (chosen, rejected), or (rated, another).

    The other of a rated answer is what was answered to another prompt, after this one's.

    Attributes:
        middle: where the second begins.
        desirable: how the first was rated; None for a pair.
        reference: the log-probability of each before training, in nats.
    """

    middle: int = 0
    desirable: bool | None = None
    reference: tuple[float, float] = UNKNOWN

    @property
    def sides(self) -> tuple[Example, Example]:
        """The two, each by itself."""
        first, second = (
            Example(self.ids[part], self.counts[part], self.row)
            for part in (slice(None, self.middle), slice(self.middle, None))
        )
        return first, second

    @property
    def size(self) -> int:
        """Positions that it takes in a row: a pair stands in one row, a rated answer and its other in two."""
        sizes = self.middle - 1, len(self.ids) - self.middle - 1
        return sum(sizes) if self.desirable is None else max(sizes)


def unit_of(first: Example, second: Example, desirable: bool | None = None) -> Unit:
    """The two as one; the row is the first one's."""
    ids, counts = np.concatenate((first.ids, second.ids)), np.concatenate((first.counts, second.counts))
    return Unit(ids, counts, first.row, middle=len(first.ids), desirable=desirable)


def with_others(rated: Sequence[Example], length: int) -> list[Unit]:
    """Answers, desirable where their target is above 0, each with the answer to the next prompt that is another one.

    Ethayarajh et al. 2024 (arXiv:2402.01306), section 4, estimate by such pairs how far the policy has moved. An answer
    that does not fit into ``length`` after the other prompt is cut: it is not learned.
    """
    units = []
    for place, one in enumerate(rated):
        prompt = one.ids[~one.counts]
        for further in range(1, len(rated) + 1):
            other = rated[(place + further) % len(rated)]
            if not np.array_equal(other.ids[~other.counts], prompt):
                break
        answer = other.ids[other.counts][: max(1, length + 1 - len(prompt))]
        units.append(unit_of(one, example(prompt.tolist(), answer.tolist(), one.row), one.target > 0))
    return units


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
    """Endless batches of whole units; see :class:`bimo.tune.packing.PackedExamples`."""

    def _laid_out(self, rows: Rows) -> UnitBatch:
        return unit_batch(self.examples, rows, self.length)


def units_once(units: Sequence[Example], batch_size: int, length: int) -> list[UnitBatch]:
    """Every unit once, in a fixed order; the last batch may have fewer rows."""
    rows = pack([unit.size for unit in units], length)
    return [unit_batch(units, rows[at : at + batch_size], length) for at in range(0, len(rows), batch_size)]


def unit_batch(units: Sequence[Any], rows: Rows, length: int) -> UnitBatch:
    """The batch of these rows of units."""
    sides = [side for unit in units for side in unit.sides]
    if units[0].desirable is None:
        places = [[2 * unit + side for unit in row for side in (0, 1)] for row in rows]
    else:
        places = [[2 * unit + side for unit in row] for row in rows for side in (0, 1)]
    batch = answer_batch(sides, places, length)
    known, rated = torch.zeros(batch.answers.shape), torch.zeros_like(batch.answers)
    order = [divmod(place, 2) for row in places for place in row]
    known[batch.answers] = torch.tensor([units[unit].reference[side] for unit, side in order], dtype=torch.float32)
    rated[batch.answers] = torch.tensor([bool(units[unit].desirable) for unit, _ in order], dtype=torch.bool)
    desirable = torch.full((len(places),), sum(bool(units[unit].desirable) for row in rows for unit in row))
    return UnitBatch(**vars(batch), reference=known, desirable=rated, whole_desirable=desirable)


@torch.no_grad()
def reference_of(model: Any, units: Sequence[Unit], batch_size: int, length: int) -> npt.NDArray[np.float32]:
    """The log-probabilities (U, 2) that the model gives to the answers as it is, in nats."""
    sides = [side for unit in units for side in unit.sides]
    result = np.zeros(len(sides), dtype=np.float32)
    rows = pack([side.size for side in sides], length)
    for at in range(0, len(rows), batch_size):
        part = rows[at : at + batch_size]
        batch = answer_batch(sides, part, length).each(lambda tensor: tensor.to(model.output_weight.device))
        found = by_answer(batch, -label_nats(model, batch))[batch.answers]
        result[[place for row in part for place in row]] = found.cpu().numpy()
    return result.reshape(-1, 2)


def with_reference(units: Sequence[Unit], known: npt.NDArray[np.float32]) -> list[Unit]:
    """The same units, each with its row of what :func:`reference_of` gave."""
    return [replace(unit, reference=(float(a), float(b))) for unit, (a, b) in zip(units, known, strict=True)]


def unit_loss(model: Any, batch: UnitBatch, objective: Objective) -> tuple[Tensor, dict[str, float]]:
    """The mean loss of the units, and what the answers are worth to the policy: its implicit rewards.

    Figures: ``reward_chosen``, ``reward_rejected``, their difference ``reward_margin``; ``accuracy``, the share of
    pairs in which the chosen answer is rewarded more; ``logprob_chosen``, ``logprob_rejected`` of the policy. Of rated
    answers chosen means desirable, and there is ``kl`` instead of ``accuracy`` and ``reward_margin``.
    """
    return (_rated_loss if objective.method == "kto" else _pair_loss)(model, batch, objective)


def _pair_loss(model: Any, batch: UnitBatch, objective: Objective) -> tuple[Tensor, dict[str, float]]:
    found, counts = by_answer(batch, -label_nats(model, batch)), lengths(batch)
    whole = batch.answers & (counts > 0)  # the doctor's batches are cut, and have answers of which nothing is left
    whole = whole.view(len(whole), -1, 2).all(dim=-1).repeat_interleave(2, dim=-1)
    policy, reference, sizes = (values[whole].view(-1, 2) for values in (found, batch.reference, counts))  # (P, 2)
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
