"""The order, the mixture and the split: seeded, stable when files are added, and true to the shares asked for."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import ConfigError, DataError
from bimo.text.arrange import NO_SIDE, Mix, arrange, epochs, id_hashes, numbers_by_source, split
from bimo.text.split import TEST, TRAIN, VALIDATION

NAMES = ("wiki", "forum", "书")


def corpus(count: int, prefix: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, sources and sizes of documents."""
    ids = [f"{prefix}{number}.txt" for number in range(count)]
    return id_hashes(ids), np.arange(count) % 3, 100 + np.arange(count) % 7


def mixed_order(ids: np.ndarray, source: np.ndarray, sizes: np.ndarray, mix: Mix, seed: int = 0) -> np.ndarray:
    kept = np.ones(len(ids), dtype=bool)
    return arrange(ids, kept, seed=seed, mix=mix, source=source, names=NAMES, sizes=sizes)


def test_without_options_the_order_is_that_of_the_input() -> None:
    ids, _, _ = corpus(7)
    kept = np.array([True, False, True, True, False, True, True])
    assert arrange(ids, kept, seed=1).tolist() == [0, 2, 3, 5, 6]
    shuffled = arrange(ids, kept, seed=1, shuffle=True).tolist()
    assert sorted(shuffled) == [0, 2, 3, 5, 6]
    orders = {tuple(arrange(ids, kept, seed=seed, shuffle=True).tolist()) for seed in range(20)}
    assert len(orders) > 10 and tuple(shuffled) in orders


def test_the_order_is_the_same_everywhere() -> None:
    ids, source, sizes = corpus(9)
    assert arrange(ids, np.ones(9, dtype=bool), seed=5, shuffle=True).tolist() == [4, 6, 0, 1, 7, 3, 8, 5, 2]
    assert mixed_order(ids, source, sizes, Mix({"wiki": 2.5, "forum": 0}, {})).tolist() == [
        5,
        6,
        0,
        3,
        0,
        8,
        2,
        3,
        6,
        0,
    ]


@given(st.integers(0, 5), st.permutations(range(30)))
def test_documents_added_or_read_in_another_order_do_not_move_the_others(seed: int, order: list[int]) -> None:
    ids, source, sizes = corpus(30)
    mix = Mix({"wiki": 2.5, "forum": 0.5}, {"书": 3})
    before = mixed_order(ids, source, sizes, mix, seed)
    moved = np.array(order)
    assert moved[mixed_order(ids[moved], source[moved], sizes[moved], mix, seed)].tolist() == before.tolist()
    new = corpus(9, "new")
    joined = (np.concatenate([new, old]) for new, old in zip(new, (ids, source, sizes), strict=True))
    after = mixed_order(*joined, mix, seed)  # type: ignore[arg-type]
    assert (after[after >= 9] - 9).tolist() == before.tolist()


def test_weights_are_numbers_of_times_and_shares_are_nested() -> None:
    ids, source, sizes = corpus(3000)
    counts = {
        weight: np.bincount(mixed_order(ids, source, sizes, Mix({"wiki": weight, "forum": 0}, {})), minlength=3000)
        for weight in (0.3, 0.5, 2, 2.5)
    }
    for weight, count in counts.items():
        assert count[source == 0].mean() == pytest.approx(weight, abs=0.05)
        assert set(count[source == 1]) == {0} and set(count[source == 2]) == {1}
        assert set(count[source == 0]) == {int(weight), int(np.ceil(weight))}
    assert (counts[0.3] <= counts[0.5]).all() and (counts[0.5] + 2 * (source == 0) == counts[2.5]).all()
    order = mixed_order(ids, source, sizes, Mix({"wiki": 2}, {}))
    assert sum(a == b for a, b in itertools.pairwise(order.tolist())) < 10  # repeats are far apart


def test_a_target_scales_the_weights_and_caps_pass_on_what_is_missing() -> None:
    sizes = np.array([1000, 500, 200])
    assert epochs(NAMES, sizes, Mix({"wiki": 2}, {"wiki": 1.5})).tolist() == [1.5, 1, 1]
    times = epochs(NAMES, sizes, Mix({"wiki": 2}, {}, 5400))
    assert times.tolist() == [4, 2, 2]
    times = epochs(NAMES, sizes, Mix({"wiki": 2}, {"wiki": 3}, 5400))
    assert times.tolist() == pytest.approx([3, 2400 / 700, 2400 / 700])
    times = epochs(NAMES, sizes, Mix({"wiki": 2}, {"wiki": 3, "forum": 3.2}, 5400))
    assert times.tolist() == pytest.approx([3, 3.2, 4])
    assert epochs(NAMES, sizes, Mix({}, dict.fromkeys(NAMES, 2), 5400)).tolist() == [2, 2, 2]  # all there may be
    assert epochs(NAMES, sizes, Mix({"wiki": 0}, {"forum": 1}, 700)).tolist() == [0, 1, 1]
    ids, source, sizes = corpus(3000)
    order = mixed_order(ids, source, sizes, Mix({"wiki": 2}, {"书": 1}, 700_000))
    assert sizes[order].sum() == pytest.approx(700_000, rel=0.01)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (Mix({"wikki": 2}, {}), "--mix names no source: 'wikki'. Did you mean 'wiki'?"),
        (Mix({}, {"foo": 2}), "--most-epochs names no source"),
        (Mix({"wiki": -1}, {}), "wiki=-1"),
        (Mix({"wiki": float("nan")}, {}), "numbers from 0 up"),
        (Mix(dict.fromkeys(NAMES, 0), {}), "leaves no text"),
    ],
)
def test_a_wrong_mixture_is_refused(mix: Mix, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        epochs(NAMES, np.array([5, 6, 7]), mix)
    assert message in str(caught.value)


def test_options_name_sources_and_numbers() -> None:
    assert numbers_by_source("--mix", "wiki=2, 书=0.5,a=b=1e1") == {"wiki": 2, "书": 0.5, "a=b": 10}
    for wrong in ("", "wiki", "wiki=", "=2", "wiki=two", "wiki=1,wiki=2", "wiki=1,", "wiki=nan"):
        with pytest.raises(ConfigError, match="--mix is wrong"):
            numbers_by_source("--mix", wrong)


def sides_of(count: int, **options: Any) -> np.ndarray:
    ids, _, sizes = corpus(count)
    values = {
        "key": ids,
        "sizes": sizes,
        "kept": np.ones(count, dtype=bool),
        "cluster": np.full(count, -1, dtype=np.int32),
        "seed": 0,
    }
    return split(**{**values, **options})


def share(sides: np.ndarray, side: int) -> float:
    return float((sides == side).mean())


def test_shares_are_met_and_seeded() -> None:
    sides = sides_of(2000)
    assert share(sides, TEST) == pytest.approx(0.08, abs=0.002)
    assert share(sides, VALIDATION) == pytest.approx(0.04, abs=0.002)
    assert (sides == sides_of(2000)).all() and (sides != sides_of(2000, seed=1)).any()
    sides = sides_of(2000, test=0.3, validation=0.2, cap_bytes=9_000)
    assert (sides == TEST).sum() == (sides == VALIDATION).sum() == pytest.approx(9000 / 103, abs=2)


def test_what_is_not_kept_has_no_side() -> None:
    kept = np.arange(50) % 4 > 0
    sides = sides_of(50, kept=kept)
    assert ((sides == NO_SIDE) == ~kept).all() and {TRAIN, VALIDATION, TEST} < set(sides.tolist())


@given(st.lists(st.integers(-1, 8), min_size=30, max_size=60), st.integers(1, 9), st.integers(0, 3))
def test_clusters_and_keys_stay_together(labels: list[int], files: int, seed: int) -> None:
    """The brute-force check: no cluster and no file has documents on two sides."""
    firsts = [labels.index(label) if label >= 0 else -1 for label in labels]
    cluster = np.array(firsts, dtype=np.int32)
    key = id_hashes(f"file {number // files}" for number in range(len(labels)))
    kept = np.arange(len(labels)) % 5 > 0
    slow = {number: number for number in np.flatnonzero(kept).tolist()}
    for same in (key, cluster):
        for a, b in itertools.combinations(slow, 2):
            if same[a] == same[b] != -1:
                slow = {number: slow[a] if label == slow[b] else label for number, label in slow.items()}
    if len(set(slow.values())) < 3:
        with pytest.raises(DataError, match="at least 3; got"):
            sides_of(len(labels), key=key, cluster=cluster, kept=kept, seed=seed)
        return
    sides = sides_of(len(labels), key=key, cluster=cluster, kept=kept, seed=seed)
    assert {TRAIN, VALIDATION, TEST} <= set(sides[kept].tolist())
    for same in (key, cluster):
        for value in set(same.tolist()) - {-1}:
            assert len(set(sides[kept & (same == value)].tolist())) <= 1


def test_a_dropped_copy_does_not_tie_its_file_to_another() -> None:
    key = id_hashes(["a", "a", "b", "c", "c"])
    cluster = np.array([-1, 1, 1, -1, -1], dtype=np.int32)
    kept = np.array([True, True, False, True, True])
    with pytest.raises(DataError, match="got 2 groups"):
        sides_of(5, key=key, cluster=cluster, kept=kept)
    kept[2] = True
    with pytest.raises(DataError, match="got 2 groups"):
        sides_of(5, key=key, cluster=cluster, kept=kept)
    cluster[:] = -1
    assert sorted(set(sides_of(5, key=key, cluster=cluster, kept=kept).tolist())) == [TRAIN, VALIDATION, TEST]


def test_by_time_the_newest_are_held_out() -> None:
    days = np.random.default_rng(0).permutation(1000)
    times = [str(np.datetime64("2019-01-01") + int(day)) for day in days]
    times[5] = times[6] = ""
    sides = sides_of(1000, times=times)
    known = np.array([bool(time) for time in times])
    assert days[known & (sides == TRAIN)].max() < days[sides == VALIDATION].min()
    assert days[sides == VALIDATION].max() < days[sides == TEST].min()
    assert share(sides, TEST) == pytest.approx(0.08, abs=0.01) and (sides[~known] == TRAIN).all()
    cluster = np.full(1000, -1, dtype=np.int32)
    old, new = sorted(np.flatnonzero((days == 3) | (days == 998)).tolist())
    cluster[[old, new]] = old
    assert sides_of(1000, times=times, cluster=cluster)[[old, new]].tolist() == [TRAIN, TRAIN]


def test_times_are_compared_as_moments() -> None:
    times = ["2021", "2021-01-01T00:30:00+02:00", "2020-12-31T23:00:00", "2021-02", "yesterday", "2021-01-01T00:00:01Z"]
    assert sides_of(6, times=times).tolist() == [TRAIN, TRAIN, TRAIN, TEST, TRAIN, VALIDATION]
    with pytest.raises(DataError, match="got 1 groups of documents whose time is known"):
        sides_of(6, times=["2021", *[""] * 5])


def test_wrong_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="held-out shares"):
        sides_of(9, validation=0)
