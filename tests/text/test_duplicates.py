"""Duplicates: planted ones are found, the best copy stays, and what is dropped resembles what is kept."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text import duplicates
from bimo.text.duplicates import SIMILARITY, Duplicates, components, copy_scores, find_duplicates, join
from bimo.text.signatures import BINS, exact_hashes, signatures, similarity
from tests.text.test_signatures import edited, random_text


def found_in(texts: list[str], score: list[float] | None = None) -> Duplicates:
    signed = signatures(texts)
    scores = np.array(score or [0] * len(texts), dtype=np.float64)
    return find_duplicates(signed.exact, signed.bands.T, signed.check, scores, np.array([len(text) for text in texts]))


def english(seed: int, words: int = 200) -> list[str]:
    return random_text(random.Random(seed), words)


def chinese(seed: int, characters: int = 300) -> list[str]:
    return random_text(random.Random(seed), characters, chinese=True)


def test_planted_copies_are_found() -> None:
    chance, words, hanzi = random.Random(5), english(0), chinese(1)
    text, chinese_text = " ".join(words), "".join(hanzi)
    texts = [
        text,
        " ".join(english(2)),
        text.upper() + "\n",  # case
        text.replace(" ", ", ", 20) + ".",  # punctuation
        "\n".join(" ".join(words[at : at + 9]) for at in range(0, len(words), 9)),  # wrapped again
        " ".join(edited(chance, words, 2)),  # small edits
        "".join(chinese(3)),
        chinese_text,
        "，".join(chinese_text[at : at + 11] for at in range(0, 300, 11)) + "。",
        "".join(edited(chance, hanzi, 3)),
        chinese_text[:140] + chinese_text[145:],
    ]
    found = found_in(texts)
    assert found.cluster.tolist() == [0, -1, 0, 0, 0, 0, -1, 7, 7, 7, 7]
    assert found.instead[[0, 2, 4, 5]].tolist() == [3, 3, 3, 3]  # the longest
    assert found.kept.sum() == 4 and not found.exact.any()
    assert (found.similarity[[0, 2, 4]] == 1).all() and 0.85 < found.similarity[5] < 1


def test_the_best_copy_is_kept() -> None:
    text = " ".join(english(0))
    longer = text + "!"
    assert found_in([text, longer, text]).instead.tolist() == [1, -1, 1]
    assert found_in([text, text, text]).instead.tolist() == [-1, 0, 0]
    assert found_in([text, longer, text], [0, 0, 0.5]).instead.tolist() == [2, 2, -1]
    assert found_in([text, longer, text], [np.nan, -7, np.nan]).instead.tolist() == [1, -1, 1]


def test_exact_copies_alone_need_no_signature() -> None:
    words = english(0)
    near = " ".join(edited(random.Random(1), words, 1))
    exact = exact_hashes([" ".join(words), near, "\n".join(words).upper()])
    found = find_duplicates(exact, (), np.empty((3, 0), dtype=np.uint8), np.zeros(3), np.array([3, 3, 5]))
    assert found.instead.tolist() == [2, -1, -1] and found.cluster.tolist() == [0, -1, 0]
    assert found.evidence(0, "b.txt") == ("exact duplicate", "same text as b.txt")


def test_exact_copies_of_a_near_copy_follow_it() -> None:
    words = english(0)
    near = " ".join(edited(random.Random(1), words, 2))
    found = found_in([near, " ".join(words), near, near.upper()], [1, 2, 0, 3])
    assert found.instead.tolist() == [3, 3, 3, -1] and found.exact.tolist() == [True, False, True, False]
    found = found_in([near, " ".join(words), near, near.upper()], [1, 2, 0, 1])
    assert found.instead.tolist() == [1, -1, 1, 1] and not found.exact.any()
    assert len(set(found.similarity[[0, 2, 3]].tolist())) == 1 and 0.75 < found.similarity[0] < 1
    assert found.evidence(0, "a.txt") == ("near duplicate", f"{found.similarity[0]:.0%} similar to a.txt")


def test_a_chain_keeps_what_resembles_no_kept_one() -> None:
    """Each is like the next, the ends are not alike: one cluster, and more than one of it kept."""
    chance, words = random.Random(2), english(7, 400)
    texts = []
    for step in range(12):
        texts.append(" ".join(words))
        words[step * 30 : step * 30 + 10] = random_text(chance, 10)
    found = found_in(texts)
    assert set(found.cluster.tolist()) == {0}
    check = signatures(texts).check
    kept = np.flatnonzero(found.kept)
    assert 1 < len(kept) < 8
    for a in kept.tolist():
        assert all(similarity(check[a], check[b]) < SIMILARITY for b in kept.tolist() if b != a)
    dropped = np.flatnonzero(~found.kept)
    assert (similarity(check[dropped], check[found.instead[dropped]]) >= SIMILARITY).all()


def arrays(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Documents out of few kinds, each with the band hashes and bins of its kind, some of them another's."""
    count = draw(st.integers(0, 24))
    chance = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    exact = np.stack([chance.integers(0, 3, count), chance.integers(0, 9, count)], axis=1).astype(np.uint64)
    kind = (exact[:, 0] * 9 + exact[:, 1]).astype(int)  # equal documents have equal signatures
    of_kind = chance.integers(0, 2, (27, BINS)) * (np.arange(BINS) < chance.integers(1, 80, (27, 1)))
    check = of_kind[kind].astype(np.uint8)
    bands = chance.integers(0, 6, (27, 3)).astype(np.uint64)[kind]
    return exact, bands, check, chance.integers(0, 4, count).astype(np.float64), chance.integers(0, 3, count)


@given(st.data())
def test_whatever_is_dropped_resembles_a_better_one_that_is_kept(data: st.DataObject) -> None:
    exact, bands, check, score, size = arrays(data.draw)
    found = find_duplicates(exact, bands.T, check, score, size)
    order = sorted(range(len(exact)), key=lambda number: (-score[number], -size[number], number))
    rank = {number: place for place, number in enumerate(order)}
    pairs = [(a, b) for a in range(len(exact)) for b in range(a)]
    equal = {pair for pair in pairs if (exact[pair[0]] == exact[pair[1]]).all()}
    alike = {pair for pair in pairs if similarity(check[pair[0]], check[pair[1]]) >= SIMILARITY}
    linked = {(a, b) for a, b in alike if (bands[a] == bands[b]).any()} | equal
    parent = np.arange(len(exact), dtype=np.int32)
    for a, b in linked:
        join(parent, np.array([a], dtype=np.int32), np.array([b], dtype=np.int32))
    reachable = components(parent)
    for number in range(len(exact)):
        instead, cluster = int(found.instead[number]), int(found.cluster[number])
        if cluster >= 0:
            members = np.flatnonzero(found.cluster == cluster)
            assert members[0] == cluster and len(members) > 1
            assert len(set(reachable[members].tolist())) == 1
        if instead < 0:
            assert found.similarity[number] == 0 and not found.exact[number]
        else:
            assert found.instead[instead] < 0 and rank[instead] < rank[number] and found.cluster[instead] == cluster
            assert found.exact[number] == ((max(number, instead), min(number, instead)) in equal)
            assert found.similarity[number] == pytest.approx(similarity(check[number], check[instead]))
            assert found.similarity[number] >= SIMILARITY
    for a, b in pairs:
        together = found.cluster[a] == found.cluster[b] >= 0
        assert together or (a, b) not in equal
        assert not (together and found.kept[a] and found.kept[b] and (a, b) in alike | equal)
        buckets = [np.flatnonzero(bands[:, column] == bands[a, column]).tolist() for column in range(3)]
        assert together or (a, b) not in alike or [b, a] not in buckets


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_joined_pairs_are_components(edges: list[tuple[int, int]]) -> None:
    slow = list(range(30))
    for a, b in edges:
        slow = [min(slow[a], slow[b]) if label in (slow[a], slow[b]) else label for label in slow]
    parent = np.arange(30, dtype=np.int32)
    for half in (edges[::2], edges[1::2]):
        join(parent, *(np.array([edge[side] for edge in half], dtype=np.int32) for side in (0, 1)))
    assert components(parent).tolist() == slow


def mixed_corpus() -> list[str]:
    chance = random.Random(11)
    texts = []
    for number in range(60):
        words = english(number, 60) if number % 2 else chinese(number, 90)
        gap = " " if number % 2 else ""
        texts += [gap.join(words)] + [gap.join(edited(chance, words, 1)) for _ in range(number % 4)]
    chance.shuffle(texts)
    return texts


def test_parts_and_memory_maps_change_nothing(tmp_path) -> None:
    """Signatures made in parts, in any order, and read from disk band by band give the same bytes."""
    texts = mixed_corpus()
    whole = signatures(texts)
    chance = random.Random(3)
    for cuts in ([], [1, 20, 21, 100]):
        edges = [0, *cuts, len(texts)]
        parts = list(itertools.pairwise(edges))
        chance.shuffle(parts)
        stored = [
            np.lib.format.open_memmap(tmp_path / f"{name}-{len(cuts)}.npy", "w+", dtype=like.dtype, shape=like.shape)
            for name, like in (("exact", whole.exact), ("bands", whole.bands.T), ("check", whole.check))
        ]
        for start, end in parts:
            signed = signatures(texts[start:end])
            stored[0][start:end], stored[1][:, start:end], stored[2][start:end] = (
                signed.exact,
                signed.bands.T,
                signed.check,
            )
        score, size = np.zeros(len(texts)), np.array([len(text) for text in texts])
        found = find_duplicates(*stored, score, size)
        expected = find_duplicates(whole.exact, whole.bands.T, whole.check, score, size)
        for field in ("cluster", "instead", "similarity", "exact"):
            assert getattr(found, field).tobytes() == getattr(expected, field).tobytes()
        assert (found.cluster >= 0).sum() > 30 and (~found.kept).sum() > 30


def test_documents_that_only_share_boilerplate_are_no_cluster_but_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "COMMON", 50)
    monkeypatch.setattr(duplicates, "ROUNDS", 3)
    texts = [" ".join(english(number, 60)) for number in range(70)]
    signed = signatures(texts)
    bands = signed.bands.T.copy()
    bands[4] = 7  # all in one bucket
    found = find_duplicates(signed.exact, bands, signed.check, np.zeros(70), np.zeros(70, dtype=np.int64))
    assert (found.cluster == -1).all() and found.kept.all()
    (crowd,) = found.crowds
    assert (crowd.kind, crowd.documents, crowd.example) == ("bucket", 70, 0)
    assert str(crowd) == "70 documents share a passage but are not similar"


def test_a_cluster_of_too_many_kinds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_KEPT", 1)
    chance, words = random.Random(2), english(7, 400)
    texts = []
    for step in range(12):
        texts.append(" ".join(words))
        words[step * 30 : step * 30 + 10] = random_text(chance, 10)
    found = found_in([*texts, texts[-1]])
    assert [crowd.kind for crowd in found.crowds] == ["cluster"] and found.crowds[0].example == 0
    assert found.instead[12] >= 0  # exact copies are dropped all the same


def test_no_documents() -> None:
    found = found_in([])
    assert found.cluster.shape == found.instead.shape == (0,) and found.crowds == ()


def test_the_copy_of_which_more_was_left_is_better_and_a_stray_blank_is_not_more() -> None:
    scores = copy_scores(np.array([100, 1000, 1000, 50, 0]), np.array([100, 999, 600, 80, 0]))
    assert scores.tolist() == [1, 1, 0.6, 1, 0]
