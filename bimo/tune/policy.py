"""What rewards teach: GRPO and its variants, as functions of rewards and of log-probabilities of single tokens.

Shapes: P prompts, G answers to each, N = P * G answers, M tokens of all answers that count.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Scaling: TypeAlias = Literal["group", "batch", "none"]
Average: TypeAlias = Literal["answers", "tokens", "constant"]

SMALLEST_SPREAD = 1e-4  # added to a standard deviation that divides


def group_advantages(rewards: Tensor, scaling: Scaling = "group") -> Tensor:
    """How much better each answer is than the others to its prompt, (P, G) from rewards (P, G).

    Shao et al. 2024 (GRPO, arXiv:2402.03300), section 4.1.2: the reward minus the group's mean, divided by the group's
    standard deviation; by that of all rewards with "batch"; by nothing with "none", as Liu et al. 2025 (Dr. GRPO,
    arXiv:2503.20783) propose, because else questions that are nearly always or never solved count most.
    """
    exact = rewards.double()  # the float32 mean of equal rewards is not quite their value, which would be scaled up
    centred = exact - exact.mean(dim=1, keepdim=True)
    if scaling != "none":
        centred /= (exact.std(dim=1, keepdim=True) if scaling == "group" else exact.std()) + SMALLEST_SPREAD
    return centred.to(rewards.dtype)


def clipped_loss(
    new: Tensor, old: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2
) -> tuple[Tensor, Tensor]:
    """What each token costs (M,), and whether clipping has taken its gradient, bool (M,).

    Shao et al. 2024 (arXiv:2402.03300), equation 3 without its KL term; with ``high`` above ``low`` the clip-higher of
    Yu et al. 2025 (DAPO, arXiv:2503.14476).

    Args:
        new: log-probability of each token now (M,).
        old: the same when it was drawn.
        advantages: of its answer (M,).
        low, high: how far the ratio of the probabilities may move from 1.
    """
    ratio = (new - old).exp()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    clipped = ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
    return loss, clipped


def divergence(new: Tensor, reference: Tensor, old: Tensor | None = None) -> Tensor:
    """An estimate of each token's divergence from the reference in nats, (M,), never negative.

    Equation 4 of Shao et al. 2024; "k3" of Schulman 2020, unbiased where the tokens are drawn from the policy. Its
    gradient is not: with ``old``, which weighs it by the ratio of the probabilities, that is the divergence's own
    (DeepSeek-V3.2, arXiv:2512.02556).
    """
    ratio = reference - new
    estimate = ratio.exp() - ratio - 1
    return estimate if old is None else estimate * (new - old).exp()


def token_weights(lengths: Tensor, average: Average, longest: int) -> Tensor:
    """What a token of each answer counts, (N,) from the answers' lengths (N,); a step's loss is the weighted sum.

    Args:
        average: "answers", each answer counting the same (Shao et al. 2024, equation 3); "tokens", each token counting
            the same (DAPO); "constant", divided by N and ``longest`` instead of anything that the policy can change
            (Dr. GRPO).
        longest: tokens that an answer may have.
    """
    count = len(lengths)
    if average == "answers":
        return 1 / (count * lengths.clamp(min=1))
    if average == "tokens":
        return (1 / lengths.sum().clamp(min=1)).expand(count)
    return lengths.new_full((count,), 1 / (count * longest), dtype=torch.float32)
