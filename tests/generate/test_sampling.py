"""The rules against transformers' own processors, and the draw against the distribution it should follow."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as witness

from bimo.errors import UsageError
from bimo.generate import sampling
from bimo.generate.sampling import BLOCK, History, Row, Sampling, Uniforms, largest, next_token, sample

V = 2 * BLOCK + 11  # two whole blocks and a part of one
SIZES = (11, V)


def logits(size: int = V) -> Row:
    return (np.random.default_rng(size).standard_normal(size) * 3).astype(np.float32)


def witnessed(processor: Callable[..., torch.Tensor], row: Row, ids: tuple[int, ...] = (0,)) -> Row:
    result: Row = processor(torch.tensor([ids]), torch.from_numpy(row)[None])[0].numpy()
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0.3, 1.0, 1.7])
def test_temperature(size: int, value: float) -> None:
    row = logits(size)
    np.testing.assert_array_equal(
        sampling.temperature(row, value), witnessed(witness.TemperatureLogitsWarper(value), row)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 2, 5, 11, 50, 2 * V])
def test_top_k(size: int, k: int) -> None:
    row = logits(size)
    row[7] = row[3]  # a tie
    np.testing.assert_array_equal(sampling.top_k(row, k), witnessed(witness.TopKLogitsWarper(k), row))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_top_p(size: int, p: float) -> None:
    row = logits(size)
    np.testing.assert_array_equal(sampling.top_p(row, p), witnessed(witness.TopPLogitsWarper(p), row))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [0.0, 0.01, 0.2, 0.9, 1.0])
def test_min_p(size: int, p: float) -> None:
    row = logits(size)
    np.testing.assert_array_equal(sampling.min_p(row, p), witnessed(witness.MinPLogitsWarper(p), row))


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty(penalty: float) -> None:
    row, ids = logits(), (1, 4, 4, 9, V - 1)
    expected = witnessed(witness.RepetitionPenaltyLogitsProcessor(penalty), row, ids)
    np.testing.assert_array_equal(sampling.repetition_penalty(row, History(ids).seen(), penalty), expected)


def test_logit_bias() -> None:
    row, bias = logits(), {3: 2.5, V - 1: -100.0}
    expected = witnessed(witness.SequenceBiasLogitsProcessor([[[id], value] for id, value in bias.items()]), row)
    np.testing.assert_array_equal(sampling.logit_bias(row, tuple(bias.items())), expected)


def test_presence_and_frequency_count_what_was_generated() -> None:
    """The formula in OpenAI's API reference: mu[j] - c[j] * frequency - (c[j] > 0) * presence."""
    row, history, generated = logits(), History([5, 6]), [2, 9, 2, 2]
    for token in generated:
        history.add(token)
    settings_ = Sampling(temperature=0, presence_penalty=0.7, frequency_penalty=0.3)
    count = np.bincount(generated, minlength=V)
    expected = row - count * 0.3 - (count > 0) * 0.7
    tokens, counts = history.counted()
    found = sampling.frequency_penalty(sampling.presence_penalty(row, tokens, 0.7), tokens, counts, 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    row[2] = row.max() + 1.5  # less than the penalties of three times
    assert next_token(row, Sampling(temperature=0)).token == 2
    assert next_token(row, settings_, history=history).token == int(np.delete(row, 2).argmax() + 1)


@pytest.mark.parametrize("size", SIZES)
def test_the_rules_combine_in_transformers_order(size: int) -> None:
    row, ids = logits(size), (1, 4, 7)
    chain = witness.LogitsProcessorList(
        [
            witness.SequenceBiasLogitsProcessor([[[4], 3.0]]),
            witness.RepetitionPenaltyLogitsProcessor(1.4),
            witness.TemperatureLogitsWarper(2.0),
            witness.TopKLogitsWarper(6),
            witness.TopPLogitsWarper(0.8),
            witness.MinPLogitsWarper(0.3),
        ]
    )
    rules = Sampling(temperature=2.0, top_k=6, top_p=0.8, min_p=0.3, repetition_penalty=1.4, logit_bias={4: 3.0})  # type: ignore[arg-type]
    expected = witnessed(chain, row, ids)
    logprobs = torch.from_numpy(expected).log_softmax(-1)
    drawn = set()
    for uniform in np.linspace(0, 0.999, 23):
        token, logprob = next_token(row, rules, history=History(ids), uniform=float(uniform))
        assert token == sample(expected, float(uniform)).token
        assert logprob == pytest.approx(float(logprobs[token]), abs=1e-5)
        drawn.add(token)
    assert drawn == set(np.flatnonzero(expected > -math.inf)) and len(drawn) > 1


def test_greedy_takes_the_likeliest_after_the_penalty() -> None:
    row = np.array([1, 3, 2], np.float32)
    greedy = Sampling(temperature=0, repetition_penalty=2.0)
    assert next_token(row, greedy, history=History([1])) == (2, 0.0)
    assert next_token(row, greedy) == (1, 0.0)


def test_draws_follow_the_distribution() -> None:
    for probabilities in (np.array([0.5, 0.0, 0.2, 0.05, 0.25]), np.random.default_rng(1).dirichlet(np.full(V, 0.1))):
        count = 4_000
        with np.errstate(divide="ignore"):
            row = np.log(probabilities).astype(np.float32)
        drawn = [sample(row, (i + 0.5) / count).token for i in range(count)]  # stratified: exact up to one
        difference = np.bincount(drawn, minlength=len(row)) - probabilities * count
        assert np.abs(difference).max() < 1.01


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-60, 60, width=32), st.just(-math.inf)), min_size=2, max_size=7),
    st.integers(1, 2 * BLOCK),
    st.floats(0, 1, exclude_max=True),
)
def test_excluded_tokens_are_never_drawn(values: list[float], repeated: int, uniform: float) -> None:
    values[len(values) // 2] = 0.0  # at least one token is possible
    row = np.array(values * repeated, np.float32)[: 2 * BLOCK + 3]
    assert row[sample(row, uniform).token] > -math.inf


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([5, BLOCK, V, 9 * BLOCK]), st.integers(1, 12))
def test_the_largest_are_those_of_a_full_sort(seed: int, size: int, k: int) -> None:
    row = np.random.default_rng(seed).integers(0, 40, size).astype(np.float32)  # many ties
    expected = np.argsort(-row, kind="stable")[:k]
    assert largest(row, k).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "rules",
    [
        Sampling(temperature=0),
        Sampling(temperature=0.7),
        Sampling(top_k=40),
        Sampling(top_p=0.9),
        Sampling(min_p=0.02, temperature=1.5, logit_bias=((3, 1.0),)),
        Sampling(top_k=300, top_p=0.95, min_p=0.01, repetition_penalty=1.2, presence_penalty=0.5),
    ],
)
def test_a_row_gives_the_same_bits_wherever_it_lies(rules: Sampling) -> None:
    row = logits(49_152)
    alone = next_token(row, rules, history=History([3, 4]), uniform=0.37)
    for rows, place, shift in ((32, 17, 0), (3, 2, 1), (5, 0, 7)):
        memory = np.full(rows * len(row) + shift, np.float32(9))
        table = memory[shift:].reshape(rows, -1)
        table[place] = row
        assert next_token(table[place], rules, history=History([3, 4]), uniform=0.37) == alone


def test_uniforms_depend_on_their_own_seed_and_place_alone() -> None:
    forth, back, other = Uniforms(7), Uniforms(7), Uniforms(8)
    assert [forth[i] for i in range(9)] == [back[i] for i in reversed(range(9))][::-1]
    assert forth[3] != other[3] and 0 <= forth[3] < 1


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
        ("presence_penalty", math.nan),
        ("frequency_penalty", "0.5"),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {3: math.inf}),
        ("logit_bias", [3]),
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


@pytest.mark.parametrize(
    "sampling", [Sampling(repetition_penalty=1e-38), Sampling(logit_bias=((2, 3e38),), temperature=0.5)]
)
def test_rules_that_leave_no_numbers_are_refused(sampling: Sampling) -> None:
    logits = np.array([9.0, 8.0, 2e8], dtype=np.float32)
    with pytest.raises(UsageError, match="infinite"):
        next_token(logits, sampling, history=History([2]), uniform=0.5)
