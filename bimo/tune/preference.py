"""What preferences teach: DPO, IPO, ORPO and KTO, as functions of log-probabilities of whole answers.

Shapes: P pairs, the last axis being (chosen, rejected); N answers that are rated one by one. Log-probabilities are sums
over the answer's tokens in nats, given the prompt, unless a name says mean. A loss is one number a pair or answer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CERTAIN = -1e-6  # nats a token: the mean log-probability that counts as certain, whose odds would be infinite


def implicit_rewards(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """How much likelier than the reference the policy finds each answer, in units of reward.

    Rafailov et al. 2023 (DPO, arXiv:2305.18290), equation 5 without the term that depends on the prompt alone.
    """
    return beta * (policy - reference)


def dpo(rewards: Tensor, smoothing: float = 0.0) -> Tensor:
    """The loss of direct preference optimisation, (P,) from implicit rewards (P, 2).

    Rafailov et al. 2023 (arXiv:2305.18290), equation 7; with ``smoothing`` the conservative form of Mitchell 2023, for
    preferences of which that share is the wrong way round.
    """
    margin = rewards[:, 0] - rewards[:, 1]
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def ipo(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """The loss of identity preference optimisation, (P,) from log-probabilities and token counts (P, 2).

    Azar et al. 2023 (arXiv:2310.12036), equation 17, ``beta`` being its tau; of means over tokens, so that the margin
    asked for does not depend on the length.
    """
    ratios = (policy - reference) / lengths
    return (ratios[:, 0] - ratios[:, 1] - 1 / (2 * beta)).square()


def log_odds_ratio(means: Tensor) -> Tensor:
    """How much better the odds of the chosen answer are, in nats, (P,) from mean log-probabilities a token (P, 2).

    Hong et al. 2024 (ORPO, arXiv:2403.07691), equations 4 and 5.
    """
    odds = means - _log_one_minus_exp(means)
    return odds[:, 0] - odds[:, 1]


def odds_ratio_loss(means: Tensor) -> Tensor:
    """ORPO's penalty (P,): equation 7 of Hong et al. 2024, which its equation 6 adds to the chosen answer's nats."""
    return -F.logsigmoid(log_odds_ratio(means))


def kto(rewards: Tensor, desirable: Tensor, baseline: Tensor | float, weights: tuple[float, float] = (1, 1)) -> Tensor:
    """The loss of Kahneman-Tversky optimisation, (N,) from implicit rewards (N,).

    Ethayarajh et al. 2024 (arXiv:2402.01306), section 4, with its value function and weights.

    Args:
        desirable: bool (N,), what the answers were rated.
        baseline: the reward of any answer, beta times the KL term z0; see :func:`kto_baseline`.
        weights: of desirable and undesirable answers.
    """
    gain = torch.where(desirable, rewards - baseline, baseline - rewards)
    weight = torch.where(desirable, gain.new_tensor(weights[0]), gain.new_tensor(weights[1]))
    return weight * (1 - torch.sigmoid(gain))


def kto_baseline(rewards: Tensor) -> Tensor:
    """What KTO compares rewards with: the mean reward of answers to other prompts (N,), at least 0, without gradient.

    Ethayarajh et al. 2024 (arXiv:2402.01306), section 4: an estimate of beta times the divergence from the reference.
    """
    return rewards.detach().mean().clamp(min=0)


def _log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0 (Maechler 2012): each of two forms where it is exact, and finite gradients of both."""
    x, middle = x.clamp(max=CERTAIN), -math.log(2)
    near = torch.log(-torch.expm1(x.clamp(min=middle)))
    far = torch.log1p(-torch.exp(x.clamp(max=middle)))
    return torch.where(x > middle, near, far)
