"""The preference losses on numbers that are worked out by hand; ``test_trl.py`` compares whole batches with TRL."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.tune import policy, preference


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dpo_by_hand() -> None:
    chosen, rejected = torch.tensor([[-3.0, -5.0], [-4.0, -2.0]]), torch.tensor([[-4.0, -4.5], [-4.0, -3.0]])
    rewards = preference.implicit_rewards(chosen, rejected, beta=0.5)
    assert rewards.tolist() == [[0.5, -0.25], [0.0, 0.5]]
    expected = [-math.log(sigmoid(0.75)), -math.log(sigmoid(-0.5))]
    assert preference.dpo(rewards).tolist() == pytest.approx(expected)


def test_smoothing_is_a_share_of_swapped_pairs() -> None:
    rewards = torch.tensor([[1.0, 0.25], [-2.0, 0.5]])
    swapped = rewards.flip(1)
    mixed = 0.7 * preference.dpo(rewards) + 0.3 * preference.dpo(swapped)
    assert torch.allclose(preference.dpo(rewards, smoothing=0.3), mixed)


def test_ipo_wants_a_margin_and_no_more() -> None:
    reference, lengths = torch.zeros(3, 2), torch.tensor([[2.0, 4.0]] * 3)
    policy_ = torch.tensor([[4.0, -12.0], [2.0, 0.0], [20.0, 0.0]])  # margins a token of 5, 1 and 10
    assert preference.ipo(policy_, reference, lengths, beta=0.1).tolist() == pytest.approx([0.0, 16.0, 25.0])


def test_the_odds_of_orpo_by_hand() -> None:
    means = torch.log(torch.tensor([[0.75, 0.2], [0.5, 0.5]]))  # odds 3 and 1/4; 1 and 1
    assert preference.log_odds_ratio(means).tolist() == pytest.approx([math.log(12), 0.0], abs=1e-6)
    assert preference.odds_ratio_loss(means).tolist() == pytest.approx([math.log(13 / 12), math.log(2)], abs=1e-6)


@given(st.floats(-200, 0), st.floats(-200, 0))
def test_the_odds_of_orpo_have_finite_gradients(chosen: float, rejected: float) -> None:
    means = torch.tensor([[chosen, rejected]], requires_grad=True)
    loss = preference.odds_ratio_loss(means).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(means.grad).all()


def test_kto_by_hand() -> None:
    rewards, desirable = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([True, False, False])
    losses = preference.kto(rewards, desirable, torch.tensor(0.5), weights=(2.0, 3.0))
    assert losses.tolist() == pytest.approx([2 * (1 - sigmoid(0.5)), 3 * (1 - sigmoid(-0.5)), 3 * (1 - sigmoid(2.5))])


def test_the_baseline_of_kto_is_never_negative_and_has_no_gradient() -> None:
    rewards = torch.tensor([1.0, 3.0, -1.0], requires_grad=True)
    baseline = preference.kto_baseline(rewards)
    assert baseline.item() == 1.0 and not baseline.requires_grad
    assert preference.kto_baseline(torch.tensor([-2.0, 1.0])).item() == 0.0


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=4))
def test_advantages_are_centred_in_their_group(rewards: list[list[float]]) -> None:
    for scaling in ("group", "batch", "none"):
        advantages = policy.group_advantages(torch.tensor(rewards), scaling)
        assert torch.allclose(advantages.mean(dim=1), torch.zeros(len(rewards)), atol=1e-3)


def test_equal_rewards_teach_nothing() -> None:
    advantages = policy.group_advantages(torch.tensor([[0.3, 0.3, 0.3], [0.0, 1.0, 0.0], [2.806355864770584] * 3]))
    assert torch.allclose(advantages[::2], torch.zeros(2, 3), atol=1e-6) and advantages[1, 1] > 1


def test_clipping_by_hand() -> None:
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    losses, clipped = policy.clipped_loss(ratios.log(), torch.zeros(5), advantages, low=0.2, high=0.3)
    assert losses.tolist() == pytest.approx([-2.6, 3.0, -1.0, 1.6, -1.1])
    assert clipped.tolist() == [True, False, False, True, False]


def test_divergence_by_hand() -> None:
    new, reference = torch.log(torch.tensor([0.2, 0.4])), torch.log(torch.tensor([0.4, 0.4]))
    assert policy.divergence(new, reference).tolist() == pytest.approx([2 - math.log(2) - 1, 0.0], abs=1e-6)


def test_the_weighted_divergence_has_the_gradient_of_the_divergence() -> None:
    """Over a whole vocabulary, in expectation over what the policy draws."""
    logits = torch.tensor([0.3, -0.8, 1.1], requires_grad=True)
    reference = torch.log_softmax(torch.tensor([1.0, 0.0, -0.5]), 0)
    new = logits.log_softmax(0)
    (new.exp() * (new - reference)).sum().backward()
    exact, logits.grad = logits.grad.clone(), None
    new = logits.log_softmax(0)
    estimate = policy.divergence(new, reference, new.detach())
    (new.exp().detach() * estimate).sum().backward()
    assert torch.allclose(logits.grad, exact, atol=1e-6)
    logits.grad = None
    new = logits.log_softmax(0)
    (new.exp().detach() * policy.divergence(new, reference)).sum().backward()
    assert not torch.allclose(logits.grad, exact, atol=1e-3)


def test_what_a_token_counts() -> None:
    lengths = torch.tensor([2, 5, 3])
    sums = {name: policy.token_weights(lengths, name, 10) for name in ("answers", "tokens", "constant")}
    assert (sums["answers"] * lengths).tolist() == pytest.approx([1 / 3] * 3)
    assert sums["tokens"].tolist() == pytest.approx([0.1] * 3)
    assert sums["constant"].tolist() == pytest.approx([1 / 30] * 3)
