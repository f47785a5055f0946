"""The n-gram baseline against a brute-force Kneser-Ney written from the definition, and its invariants."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.models.ngram import FALLBACK_DISCOUNTS, NGram, _grouped, estimate_discounts, score_best

EOS = 2
VOCAB = 7

documents = st.lists(st.lists(st.sampled_from([0, 1, 3, 4, 5]), max_size=12), min_size=1, max_size=6)  # 6 is never seen


def stream(texts: list[list[int]]) -> np.ndarray:
    return np.array([token for text in texts for token in (EOS, *text)])


def random_texts(seed: int, count: int, vocab: int) -> list[list[int]]:
    """Texts with repeated phrases, so that every count of counts that the discounts need is there."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, vocab - EOS)
    drawn = [
        generator.choice(vocab - EOS - 1, size=generator.integers(40), p=weights / weights.sum()) for _ in range(count)
    ]
    return [(text + EOS + 1).tolist() for text in drawn]


class BruteForce:
    """Chen and Goodman's definition over dictionaries of tuples, one probability at a time."""

    def __init__(self, texts: list[list[int]], order: int, vocab: int) -> None:
        order = min(order, 2 + max(map(len, texts)))  # a document is one token longer at each end
        self.order, self.vocab = order, vocab
        plain: dict[int, Counter] = {length: Counter() for length in range(1, order + 1)}
        for text in texts:
            whole = (EOS, *text, EOS)
            for end in range(2, len(whole) + 1):
                for length in range(1, min(order, end) + 1):
                    plain[length][whole[end - length : end]] += 1
        self.counts = {order: plain[order]}
        for length in range(1, order):
            left = Counter(gram[1:] for gram in plain[length + 1])
            self.counts[length] = Counter({gram: left.get(gram, count) for gram, count in plain[length].items()})

    def probability(self, history: tuple[int, ...], token: int) -> float:
        length = len(history) + 1
        lower = self.probability(history[1:], token) if history else 1 / self.vocab
        counts = self.counts[length]
        after = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
        if not after:
            return lower
        discounts = estimate_discounts(np.array(list(counts.values())))
        freed = sum(discounts[min(count, 3)] for count in after.values())
        own = max(after.get(token, 0) - discounts[min(after.get(token, 0), 3)], 0)
        return (own + freed * lower) / sum(after.values())

    def log_probs(self, texts: list[list[int]]) -> list[float]:
        wholes = [(EOS, *text, EOS) for text in texts]
        return [
            math.log(self.probability(whole[max(0, end - self.order + 1) : end], whole[end]))
            for whole in wholes
            for end in range(1, len(whole))
        ]


@given(train=documents, held_out=documents, order=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_equals_brute_force(train: list[list[int]], held_out: list[list[int]], order: int) -> None:
    model = NGram.fit(stream(train), vocab_size=VOCAB, eos_id=EOS, order=order)
    expected = BruteForce(train, order, VOCAB).log_probs(held_out)
    np.testing.assert_allclose(model.log_probs(stream(held_out)), expected, atol=1e-12)


def test_equals_brute_force_with_estimated_discounts() -> None:
    train, held_out = random_texts(0, 50, 23), random_texts(1, 3, 23)
    model = NGram.fit(stream(train), vocab_size=23, eos_id=EOS, order=3)
    estimates = [model.levels[1].continued(), model.levels[2].plain()]
    assert all(estimate is not None and tuple(estimate.discounts) != FALLBACK_DISCOUNTS for estimate in estimates)
    np.testing.assert_allclose(
        model.log_probs(stream(held_out)), BruteForce(train, 3, 23).log_probs(held_out), atol=1e-12
    )


@given(train=documents, history=st.lists(st.sampled_from([0, 1, 3, 4, 5, 6]), max_size=7), order=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_probabilities_sum_to_one(train: list[list[int]], history: list[int], order: int) -> None:
    model = NGram.fit(stream(train), vocab_size=VOCAB, eos_id=EOS, order=order)
    following = [model.log_probs(stream([[*history, token]]))[len(history)] for token in range(VOCAB) if token != EOS]
    ending = model.log_probs(stream([history]))[-1]
    assert math.isclose(np.exp([*following, ending]).sum(), 1, abs_tol=1e-9)


def test_context_does_not_cross_documents() -> None:
    model = NGram.fit(stream([[0, 1, 3], [4, 5]]), vocab_size=VOCAB, eos_id=EOS, order=5)
    alone, after_other = model.log_probs(stream([[4, 5]])), model.log_probs(stream([[0, 1, 3], [4, 5]]))
    np.testing.assert_array_equal(alone, after_other[-3:])


def test_scores_while_counting_are_those_of_the_fitted_model() -> None:
    train, validation, held_out = (stream(random_texts(seed, count, 11)) for seed, count in ((2, 30), (3, 5), (4, 7)))
    nats = {}
    for most in (1, 2, 3, 4):
        fitted = NGram.fit(train, vocab_size=11, eos_id=EOS, order=most)
        nats[most] = -fitted.log_probs(validation).sum()
        order, log_probs = score_best(train, validation, held_out, vocab_size=11, eos_id=EOS, max_order=most)
        assert order == min(nats, key=nats.__getitem__)
        best = NGram.fit(train, vocab_size=11, eos_id=EOS, order=order)
        np.testing.assert_array_equal(log_probs, best.log_probs(held_out))


def test_discounts_by_hand() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 5])  # n1..n4 = 8, 4, 2, 1; Y = 8 / (8 + 2 * 4) = 1/2
    np.testing.assert_allclose(estimate_discounts(counts), [0, 1 - 0.5 * 2 * 0.5, 2 - 0.5 * 3 * 0.5, 3 - 0.5 * 4 * 0.5])


@pytest.mark.parametrize("counts", [[1, 1, 1], [2, 3, 4], [1, 2, 3, 4, 4, 4, 4, 4]])
def test_discounts_fall_back_when_counts_are_too_regular(counts: list[int]) -> None:
    assert tuple(estimate_discounts(np.array(counts))) == FALLBACK_DISCOUNTS


def test_the_order_is_chosen_on_validation_text() -> None:
    def best(train: np.ndarray, validation: np.ndarray, **options: int) -> int:
        return score_best(train, validation, validation, vocab_size=VOCAB, eos_id=EOS, **options)[0]

    cycle = stream([[0, 1, 0, 3] * 20])  # what follows 0 depends on the token before it, and on nothing earlier
    assert best(cycle, cycle[:40], max_order=2) == 2
    assert best(cycle, cycle[:40]) >= 3
    noise = [np.random.default_rng(seed).choice([0, 1, 3, 4, 5], size=200).tolist() for seed in (0, 1)]
    assert best(stream(noise[:1]), stream(noise[1:])) == 1


def test_keys_do_not_overflow_small_integers() -> None:
    vocab = 60_000  # context * vocab exceeds 16 and 32 bits; shards store ids as uint16
    tokens = np.random.default_rng(5).integers(3, vocab, size=80_000).astype(np.uint16)
    tokens[0] = EOS
    model = NGram.fit(tokens, vocab_size=vocab, eos_id=EOS, order=3)
    assert model.levels[2].keys.max() > 2**32
    assert model.log_probs(tokens[:1000])[5:-1].mean() > -2, "seen text is likely"
    np.testing.assert_allclose(model.log_probs(tokens[:50]), model.log_probs(tokens[:50].astype(np.int64)))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.sampled_from([1, 1 << 50, (1 << 63) // 41]))
def test_grams_are_numbered_as_numpy_does_whether_or_not_places_fit_beside_keys(values: list[int], times: int) -> None:
    keys = np.array(values, dtype=np.int64) * times
    expected = np.unique(keys, return_inverse=True, return_counts=True)
    for found, wanted in zip(_grouped(keys), expected, strict=True):
        assert np.array_equal(found, wanted)
