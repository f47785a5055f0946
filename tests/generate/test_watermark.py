"""The watermark: marked text is found, other text is not more often than the p-value says."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import UsageError
from bimo.generate.engine import Engine
from bimo.generate.request import Request, Token
from bimo.generate.sampling import Sampling, next_token
from bimo.generate.watermark import Detection, Watermark
from tests.generate.fake import FakeBackend

V = 211
MARK = Watermark("a secret of mine")


def written(watermark: Watermark | None, count: int, seed: int) -> list[int]:
    """Tokens drawn from random distributions, with the mark or without."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    for _ in range(count):
        logits = rng.normal(0, 1.5, V)
        if watermark is not None:
            logits = logits + watermark.delta * watermark.green(ids, V)
        ids.append(int((logits + rng.gumbel(size=V)).argmax()))
    return ids


def test_marked_text_is_found_and_other_text_is_not() -> None:
    for seed in range(5):
        marked, plain = MARK.detect(written(MARK, 200, seed)), MARK.detect(written(None, 200, seed))
        assert marked.p_value < 1e-6 and marked.z_score > 5
        assert plain.p_value > 1e-3
        assert Watermark("another secret").detect(written(MARK, 200, seed)).p_value > 1e-3


def test_the_p_value_is_the_share_of_plain_texts_that_look_as_marked() -> None:
    rng = np.random.default_rng(0)
    values = [MARK.detect(rng.integers(0, V, 60).tolist()).p_value for _ in range(2_000)]
    for alpha in (0.01, 0.05, 0.2):
        deviation = math.sqrt(alpha * (1 - alpha) / len(values))
        assert np.mean(np.array(values) <= alpha) <= alpha + 4 * deviation


def test_repetition_is_no_mark() -> None:
    ids = written(None, 30, 3)
    once, often = MARK.detect(ids), MARK.detect(ids * 50)
    assert often.pairs <= once.pairs + MARK.width  # but for the seams
    assert often.p_value > 1e-3


@given(st.integers(1, 120), st.data(), st.sampled_from([0.1, 0.25, 0.5]))
def test_the_p_value_is_the_binomial_tail(pairs: int, data: st.DataObject, gamma: float) -> None:
    green = data.draw(st.integers(0, pairs))
    share = Fraction(gamma)
    tail = sum(math.comb(pairs, k) * share**k * (1 - share) ** (pairs - k) for k in range(green, pairs + 1))
    assert Detection(pairs, green, gamma).p_value == pytest.approx(float(tail), rel=1e-9)


@given(st.integers(1, 4), st.lists(st.integers(0, V - 1), max_size=40))
def test_what_is_green_while_writing_is_green_while_reading(width: int, ids: list[int]) -> None:
    watermark = Watermark("a secret of mine", width=width)
    seen = {
        (*ids[at - width : at], ids[at]): bool(watermark.green(ids[:at], V)[ids[at]]) for at in range(width, len(ids))
    }
    found = watermark.detect(ids)
    assert (found.pairs, found.green) == (len(seen), sum(seen.values()))


def test_what_is_green_never_changes() -> None:
    """A text that was marked once must be found for ever."""
    green = MARK.green([7, 3], 1 << 16)
    assert np.flatnonzero(green)[:8].tolist() == [3, 10, 22, 23, 32, 34, 36, 43]
    assert green.mean() == pytest.approx(MARK.gamma, abs=0.01)
    assert not MARK.green([7], V).any()


@pytest.mark.parametrize("wrong", [{"key": "short"}, {"gamma": 1.0}, {"delta": 0.0}, {"width": 0}])
def test_wrong_values_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="is wrong|too short"):
        Watermark(**{"key": "a secret of mine", **wrong})  # type: ignore[arg-type]


def test_the_engine_writes_the_mark_whatever_is_computed_beside_it() -> None:
    sampling = Sampling(max_new_tokens=120, temperature=1.0, top_k=40)
    marked = Request([3, 1, 4], sampling, seed=7, eos_ids=frozenset(), watermark=MARK)
    plain = Request([3, 1, 4], sampling, seed=7, eos_ids=frozenset())
    engine = Engine(FakeBackend(vocab_size=V, pages=64, context=256))
    handles = [engine.submit(request) for request in (marked, plain, marked)]
    engine.close(drain=True)
    first, other, again = ([event.id for event in handle if isinstance(event, Token)] for handle in handles)
    assert first == again != other
    assert MARK.detect(first).p_value < 1e-4 < 1e-2 < MARK.detect(other).p_value


def test_a_mark_brings_nothing_in_that_a_rule_has_left_out() -> None:
    logits = np.array([5.0, 4.0, 3.0, 0.0, 0.0], dtype=np.float32)
    bonus = np.array([0.0, 0.0, 0.0, 20.0, 20.0], dtype=np.float32)
    for sampling in (Sampling(top_k=3), Sampling(top_p=0.9), Sampling(min_p=0.05)):
        drawn = {next_token(logits, sampling, uniform=u / 50, bonus=bonus).token for u in range(50)}
        assert drawn <= {0, 1, 2}
    greedy = Sampling(temperature=0)
    assert next_token(logits, greedy, bonus=bonus * np.float32(0.2)).token == 0
    assert next_token(logits, greedy, bonus=bonus).token == 3
