"""How far a classifier's probabilities can be believed, and one number that makes them more honest.

Guo et al. 2017, On Calibration of Modern Neural Networks. Shapes: N texts, L classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bimo.evaluate.metrics.calibration import BINS, binned, error

LOWEST, HIGHEST = 0.05, 20.0
STEPS = 60
LIKELIHOOD_RATIO = 3.84  # the 95th percentile of chi-squared with one degree of freedom


def calibration_error(scores: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """The expected calibration error (§2), as the metric ``ece`` of the tasks.

    Args:
        scores: logits (N, L).
        labels: int (N,).
    """
    confidence, chosen = scores.double().softmax(dim=-1).max(dim=-1)
    sums = binned(confidence.cpu().numpy(), (chosen == labels).cpu().numpy(), bins)
    return float(error(sums.sum(axis=0)))


def best_temperature(scores: Tensor, labels: Tensor) -> float:
    """What to divide the scores by for honest probabilities: 1 where the texts are too few to tell another from it.

    That is a likelihood-ratio test at 5%: a temperature that is fitted to chance makes probabilities worse.

    Args:
        scores: logits (N, L).
        labels: int (N,).
    """
    if not len(labels):
        return 1.0
    found, scores = fitted_temperature(scores, labels), scores.double()
    gain = F.cross_entropy(scores, labels) - F.cross_entropy(scores / found, labels)
    return found if 2 * len(labels) * float(gain) > LIKELIHOOD_RATIO else 1.0


def fitted_temperature(scores: Tensor, labels: Tensor) -> float:
    """What to divide the scores by, for the lowest cross-entropy on these texts (§4.2).

    The cross-entropy is convex in 1 / T, so that halving the bracket of its logarithm's slope finds the lowest.

    Args:
        scores: logits (N, L), N > 0.
        labels: int (N,).
    """
    scores = scores.double()
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(STEPS):
        sharpness = torch.tensor((low * high) ** 0.5, dtype=torch.double, device=scores.device, requires_grad=True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(F.cross_entropy(scores * sharpness, labels), sharpness)
        middle = float(sharpness.detach())
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)
