"""The rules against transformers' own processors, and the draw against the distribution it should follow."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as witness

from bimo.errors import UsageError
from bimo.generate import sampling
from bimo.generate.sampling import Sampling, next_tokens, sample, uniforms

B, V = 3, 11


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(5)) * 3


IDS = torch.zeros(B, 2, dtype=torch.long)  # what the witnesses want as context, mostly unread


@pytest.mark.parametrize("value", [0.3, 1.0, 1.7])
def test_temperature(logits: torch.Tensor, value: float) -> None:
    assert torch.equal(sampling.temperature(logits, value), witness.TemperatureLogitsWarper(value)(IDS, logits))


@pytest.mark.parametrize("k", [1, 2, 5, V, 50])
def test_top_k(logits: torch.Tensor, k: int) -> None:
    assert torch.equal(sampling.top_k(logits, k), witness.TopKLogitsWarper(k)(IDS, logits))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_top_p(logits: torch.Tensor, p: float) -> None:
    assert torch.equal(sampling.top_p(logits, p), witness.TopPLogitsWarper(p)(IDS, logits))


@pytest.mark.parametrize("p", [0.0, 0.01, 0.2, 0.9, 1.0])
def test_min_p(logits: torch.Tensor, p: float) -> None:
    assert torch.equal(sampling.min_p(logits, p), witness.MinPLogitsWarper(p)(IDS, logits))


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty(logits: torch.Tensor, penalty: float) -> None:
    ids = torch.tensor([[1, 4, 4, 9], [0, 0, 0, 0], [10, 2, 3, 1]])
    seen = torch.zeros(B, V, dtype=torch.bool).scatter_(1, ids, True)
    expected = witness.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    assert torch.equal(sampling.repetition_penalty(logits, seen, penalty), expected)


def test_the_rules_combine_in_transformers_order(logits: torch.Tensor) -> None:
    ids = torch.tensor([[1, 4], [0, 7], [10, 2]])
    chain = witness.LogitsProcessorList(
        [
            witness.RepetitionPenaltyLogitsProcessor(1.4),
            witness.TemperatureLogitsWarper(2.0),
            witness.TopKLogitsWarper(6),
            witness.TopPLogitsWarper(0.8),
            witness.MinPLogitsWarper(0.3),
        ]
    )
    seen = torch.zeros(B, V, dtype=torch.bool).scatter_(1, ids, True)
    settings_ = Sampling(temperature=2.0, top_k=6, top_p=0.8, min_p=0.3, repetition_penalty=1.4)
    expected = chain(ids, logits)
    for uniform in torch.linspace(0, 0.999, 23):
        drawn = next_tokens(logits, settings_, seen=seen, uniform=uniform.repeat(B))
        assert torch.equal(drawn, sample(expected, uniform.repeat(B)))


def test_greedy_takes_the_likeliest_after_the_penalty() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    seen = torch.tensor([[False, True, False], [False, False, False]])
    greedy = Sampling(temperature=0, repetition_penalty=2.0)
    assert next_tokens(logits, greedy, seen=seen, uniform=None).tolist() == [2, 1]


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.05, 0.25])
    count = 10_000
    grid = (torch.arange(count) + 0.5) / count  # a stratified sample: counts are exact up to one
    drawn = sample(probabilities.log().expand(count, -1), grid)
    assert (torch.bincount(drawn, minlength=5) - probabilities * count).abs().max() <= 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-60, 60, width=32), st.just(-math.inf)), min_size=2, max_size=7),
    st.floats(0, 1),
)
def test_excluded_tokens_are_never_drawn(row: list[float], uniform: float) -> None:
    row[len(row) // 2] = 0.0  # at least one token is possible
    token = int(sample(torch.tensor([row]), torch.tensor([uniform], dtype=torch.float64)))
    assert row[token] > -math.inf


def test_uniforms_depend_on_their_own_seed_alone() -> None:
    alone, together = uniforms([7], 5), uniforms([2, 7, 3], 13)
    assert alone.shape == (5, 1) and together.shape == (13, 3)
    assert torch.equal(alone[:, 0], together[:5, 1])
    assert not torch.equal(together[:, 0], together[:, 2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", 1e-9),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("temperature", "0.7"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0),
        ("stop", ("",)),
        ("stop", (3,)),
        ("stop", 3),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name} is wrong.*got"):
        Sampling(**{name: value})  # type: ignore[arg-type]


def test_stop_may_be_one_text_or_several() -> None:
    assert Sampling(stop="\n").stop == ("\n",)  # type: ignore[arg-type]
    assert Sampling(stop=["a", "bc"]).stop == ("a", "bc")  # type: ignore[arg-type]
