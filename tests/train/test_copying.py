"""Copies are found where they are, and trusted as far as they were right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.train.copying import MATCHES, REACH, find_copies

EOS = 0
streams = st.lists(st.integers(0, 3), max_size=60).map(lambda ids: np.array([EOS, *ids], dtype=np.uint16))


def slowly(ids: list[int], place: int) -> tuple[int, bool]:
    """The kind of the longest match before the label of a place, and whether it tells the label."""
    label = ids[(place + 1) % len(ids)]
    begin = max(at for at in range(place + 1) if ids[at] == EOS)
    for kind in range(len(MATCHES), 0, -1):
        length = MATCHES[kind - 1]
        if place - length < begin:
            continue  # a match holds no beginning of a document
        wanted = ids[place - length + 1 : place + 1]
        for before in range(place - 1, max(begin + length, place - REACH) - 1, -1):
            if ids[before - length + 1 : before + 1] == wanted:
                return kind, ids[before + 1] == label
    return 0, False


@given(streams)
def test_the_longest_and_last_match_counts(ids: np.ndarray) -> None:
    found = find_copies(ids, EOS)
    expected = [slowly(ids.tolist(), place) for place in range(len(ids))]
    assert list(zip(found.kinds.tolist(), found.right.tolist(), strict=True)) == expected


def test_copies_from_too_far_away_do_not_count() -> None:
    for distance, kind in ((REACH, 1), (REACH + 1, 0)):
        ids = np.arange(distance + 2)
        ids[distance + 1] = ids[1] = 7 * REACH
        assert find_copies(ids, EOS).kinds[distance + 1] == kind


@given(streams)
def test_they_are_trusted_as_far_as_they_were_right(ids: np.ndarray) -> None:
    found = find_copies(ids, EOS)
    trust = found.trust()
    assert trust[0] == 0 and ((trust[1:] > 0) & (trust[1:] < 1)).all()
    blind = np.full(len(ids), math.log(0.25))
    log_probs = found.log_probs(blind, trust)
    assert np.isfinite(log_probs).all()
    assert log_probs[found.kinds == 0] == pytest.approx(math.log(0.25))
    matched = found.kinds > 0
    assert (log_probs[found.right] > math.log(0.25)).all()
    assert (log_probs[matched & ~found.right] < math.log(0.25)).all()


def test_a_label_is_given_probabilities_that_sum_to_one() -> None:
    ids = np.array([EOS, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2])
    trust = find_copies(ids, EOS).trust()
    total = 0.0
    for label in range(4):
        changed = np.append(ids, label)
        found = find_copies(changed, EOS)
        total += math.exp(found.log_probs(np.full(len(changed), math.log(0.25)), trust)[len(ids) - 1])
    assert total == pytest.approx(1.0)
