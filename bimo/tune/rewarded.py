"""Learning from rewards: the batch of answers that were drawn and rewarded, and its loss.

Shapes: B rows, T positions, M labels that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bimo.train.objective import label_nats
from bimo.tune import policy
from bimo.tune.answers import AnswerBatch, answer_batch
from bimo.tune.examples import Example
from bimo.tune.packing import pack

Values = npt.NDArray[np.float32]
FACTS = ("reward", "reward_spread", "answer_tokens", "finished", "undecided")


@dataclass(frozen=True)
class PolicyObjective:
    """The numbers of GRPO's loss.

    Attributes:
        clip_low, clip_high: how far the probability of a token may fall or rise in favour of the reward.
        kl: weight of the divergence from the reference; 0 needs no reference.
        exact_kl: whether the divergence is weighted so that its gradient is unbiased; the first GRPO did not.
        temperature: of sampling, and so of the policy that is learned.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    exact_kl: bool = True
    temperature: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """An answer that the policy gave.

    Attributes:
        example: its prompt, and the answer, whose A tokens count.
        advantage: how much better than the other answers it is.
        weight: of each of its tokens in the loss of the step.
        old: log-probability of each token when it was drawn (A,); None as long as the weights are those of then.
        reference: the same of the reference (A,); None where it is not needed.
    """

    example: Example
    advantage: float
    weight: float
    old: Values | None = None
    reference: Values | None = None


@dataclass(frozen=True)
class RolloutBatch(AnswerBatch):
    """Answers, and for each label that counts what its loss depends on, float32 (B, T).

    Attributes:
        advantages, weights, old, reference: as in :class:`Drawn`; NaN where they are not known.
        facts: float32 (B, len(FACTS)), everywhere the figures of the whole rollout.
    """

    advantages: Tensor
    weights: Tensor
    old: Tensor
    reference: Tensor
    facts: Tensor

    def rows(self, part: int, parts: int) -> RolloutBatch:
        """Every so-manieth row: how many there are is not planned, and parts may be unequal or empty."""
        return self.each(lambda tensor: tensor[part::parts])


def rollout_batch(
    drawn: Sequence[Drawn], rows: Sequence[Sequence[int]], length: int, facts: Sequence[float]
) -> RolloutBatch:
    """The batch of these rows, each naming its answers by their places."""
    batch = answer_batch([one.example for one in drawn], rows, length)
    order = [drawn[place] for row in rows for place in row]  # as the labels that count stand in the batch

    def spread(values: list[Values]) -> Tensor:
        result = torch.full(batch.loss_mask.shape, float("nan"))
        result[batch.loss_mask] = torch.from_numpy(np.concatenate(values))
        return result

    def alike(value: float, one: Drawn) -> Values:
        return np.full(one.example.learned, value, dtype=np.float32)

    return RolloutBatch(
        **vars(batch),
        advantages=spread([alike(one.advantage, one) for one in order]),
        weights=spread([alike(one.weight, one) for one in order]),
        old=spread([alike(np.nan, one) if one.old is None else one.old for one in order]),
        reference=spread([alike(np.nan, one) if one.reference is None else one.reference for one in order]),
        facts=torch.tensor(facts, dtype=torch.float32).expand(len(rows), -1),
    )


def rollout_loss(model: Any, batch: RolloutBatch, objective: PolicyObjective) -> tuple[Tensor, dict[str, float]]:
    """GRPO's loss; and the rollout's figures, ``clipped``, the share of tokens, and ``kl``, in nats a token.

    Shao et al. 2024 (arXiv:2402.03300), equation 3. On answers of the present weights the ratio of the probabilities
    is 1, but its gradient is that of the log-probability.
    """
    new, at = -label_nats(model, batch, temperature=objective.temperature), batch.loss_mask
    old = torch.where(batch.old[at].isnan(), new.detach(), batch.old[at])
    losses, clipped = policy.clipped_loss(new, old, batch.advantages[at], objective.clip_low, objective.clip_high)
    figures = dict(zip(FACTS, batch.facts[0].tolist(), strict=True))
    figures["clipped"] = clipped.float().mean().item()
    if objective.kl:
        moved = policy.divergence(new, batch.reference[at], old if objective.exact_kl else None)
        losses = losses + objective.kl * moved
        figures["kl"] = moved.mean().item()
    return batch.total(losses * batch.weights[at]), figures


@torch.no_grad()
def token_logprobs(
    model: Any, examples: Sequence[Example], batch_size: int, length: int, temperature: float
) -> list[Values]:
    """The log-probability of each label of each example, as the model is."""
    result: list[Values] = [np.zeros(0, np.float32)] * len(examples)
    rows = pack([example.size for example in examples], length)
    for at in range(0, len(rows), batch_size):
        part = rows[at : at + batch_size]
        batch = answer_batch(examples, part, length).to(model.output_weight.device)
        found = -label_nats(model, batch, temperature=temperature).cpu().numpy()
        ends = np.cumsum([examples[place].learned for row in part for place in row])
        for place, values in zip((place for row in part for place in row), np.split(found, ends[:-1]), strict=True):
            result[place] = values
    return result
