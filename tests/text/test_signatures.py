"""Signatures: what counts as the same, and how well they estimate what sets of shingles say."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text import signatures as module
from bimo.text.shingles import words_of
from bimo.text.signatures import BANDS, BINS, SHINGLE, normal_form, signatures, similarity

HANZI = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生"
ENGLISH = ["".join(letters) for length in (2, 3, 4) for letters in itertools.product("aeinorst", repeat=length)]


def random_text(chance: random.Random, words: int, chinese: bool = False) -> list[str]:
    return chance.choices(HANZI if chinese else ENGLISH, k=words)


def edited(chance: random.Random, words: list[str], changes: int) -> list[str]:
    result = list(words)
    for place in chance.sample(range(len(words)), min(changes, len(words))):
        result[place] = random_text(chance, 1, chinese=words[0] in HANZI)[0]
    return result


def jaccard(a: list[str], b: list[str]) -> float:
    """Of the sets of shingles themselves."""
    one, other = (
        {tuple(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))} for words in (a, b)
    )
    return len(one & other) / len(one | other)


def pairs(chance: random.Random, count: int, length: int, chinese: bool) -> tuple[list[float], list[str], list[str]]:
    true, first, second = [], [], []
    for _ in range(count):
        words = random_text(chance, length, chinese)
        other = edited(chance, words, chance.randint(0, max(1, length // 12)))
        true.append(jaccard(words, other))
        first.append(("" if chinese else " ").join(words))
        second.append(("" if chinese else " ").join(other))
    return true, first, second


@pytest.mark.parametrize("chinese", [False, True])
@pytest.mark.parametrize(("length", "wider"), [(7, 1.6), (40, 1.6), (150, 1.25), (700, 1.15)])
def test_estimates_are_as_good_as_theory_says(length: int, wider: float, chinese: bool) -> None:
    """No bias, and the deviation of K independent bins; with empty bins filled from others, a little more."""
    true, first, second = pairs(random.Random(length), 400, length, chinese)
    a, b = signatures(first), signatures(second)
    errors = similarity(a.check, b.check) - np.array(true)
    deviation = np.sqrt(np.mean([s * (1 - s) for s in true]) / BINS)
    assert abs(errors.mean()) < 4 * wider * deviation / 20
    assert errors.std() < wider * deviation


def test_bins_that_agree_by_chance_do_not_count() -> None:
    bins = np.arange(BINS, dtype=np.uint8)
    half = np.where(bins < BINS // 2, bins, bins + 1).astype(np.uint8)
    assert similarity(bins, half) == pytest.approx((0.5 - 1 / 256) * 256 / 255)
    assert similarity(np.stack([bins, bins]), np.stack([bins + 1, bins]).astype(np.uint8)).tolist() == [0, 1]


def test_bands_are_shared_as_often_as_theory_says() -> None:
    true, first, second = pairs(random.Random(3), 1500, 250, chinese=False)
    shared = (signatures(first).bands == signatures(second).bands).any(axis=1)
    expected = 1 - (1 - np.array(true) ** (BINS // BANDS)) ** BANDS
    for low, high in ((0, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 1.01)):
        there = (low <= np.array(true)) & (np.array(true) < high)
        assert there.sum() > 50
        assert shared[there].mean() == pytest.approx(expected[there].mean(), abs=0.06)
    assert shared[np.array(true) >= 0.85].mean() > 0.98


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Hello, World!\n", "hello,   world!"),
        ("a\nb\n\nc", "A B C"),
        ("Ｆｕｌｌ １２３，好", "full 123,好"),
        ("cafe\u0301 ﬁne", "CAFÉ fine"),
        ("Straße", "STRASSE"),
    ],
)
def test_the_same_text(text: str, other: str) -> None:
    signed = signatures([text, other])
    assert signed.exact[0].tolist() == signed.exact[1].tolist()
    assert signed.bands[0].tolist() == signed.bands[1].tolist()


@pytest.mark.parametrize(("text", "other"), [("a b", "ab"), ("a, b", "a b"), ("好。", "好"), ("résumé", "resume")])
def test_another_text(text: str, other: str) -> None:
    signed = signatures([text, other])
    assert signed.exact[0].tolist() != signed.exact[1].tolist()


def test_punctuation_and_line_ends_do_not_count_for_similarity() -> None:
    chance = random.Random(0)
    words = random_text(chance, 300)
    wrapped = "".join(word + chance.choice([" ", "\n", ", ", ".\n\n", " - "]) for word in words).title()
    signed = signatures([" ".join(words), wrapped])
    assert similarity(signed.check[0], signed.check[1]) == 1


def test_texts_without_words_equal_only_the_same() -> None:
    signed = signatures(["", "...", "…", " \n", "?!"])  # NFKC makes three dots of an ellipsis
    same = [[(signed.bands[a] == signed.bands[b]).any() for a in range(5)] for b in range(5)]
    assert same[1][2] and same[0][3] and sum(map(sum, same)) == 5 + 4


def test_the_signature_is_the_same_everywhere() -> None:
    """Written down once: signatures of one machine are compared with those of another."""
    signed = signatures(["The quick brown fox jumps over the lazy dog.", "我能吞下玻璃而不伤身体。"])
    assert signed.exact.tolist() == [
        [11643974252446127788, 17014639038348201883],
        [8049493208342469961, 3248434352620094095],
    ]
    assert signed.bands[:, 0].tolist() == [13407484770502687790, 13278842160847058475]
    assert signed.check[:, :8].tolist() == [
        [115, 115, 188, 165, 115, 115, 165, 165],
        [29, 187, 29, 187, 203, 203, 187, 187],
    ]
    assert (signed.exact.dtype, signed.bands.dtype, signed.check.dtype) == (np.uint64, np.uint64, np.uint8)


@given(st.lists(st.text("ab é我，.\n\ud800", max_size=30), max_size=12), st.integers(1, 40))
def test_a_signature_does_not_depend_on_its_neighbours(texts: list[str], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", batch)
        together = signatures(texts)
    assert together.exact.shape == (len(texts), 2) and together.bands.shape == (len(texts), BANDS)
    for number, text in enumerate(texts):
        alone = signatures([text])
        for all_of, one in zip(
            (together.exact, together.bands, together.check), (alone.exact, alone.bands, alone.check), strict=True
        ):
            assert all_of[number].tobytes() == one.tobytes()
    for a, first in enumerate(texts):
        for b, second in enumerate(texts):
            same = normal_form(first) == normal_form(second)
            assert same == (together.exact[a].tolist() == together.exact[b].tolist())
            if words_of(first).hashes.tolist() == words_of(second).hashes.tolist() != []:
                assert (together.bands[a] == together.bands[b]).all()


def test_a_huge_text_is_signed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(random_text(random.Random(1), 5000))
    whole = signatures([text])
    monkeypatch.setattr(module, "PIECE", 3000)
    pieces = signatures([text])
    assert pieces.exact.tolist() == whole.exact.tolist()
    assert 0.9 < similarity(pieces.check[0], whole.check[0]) <= 1
