"""The baseline of text classifiers: its features, and its figures against scikit-learn's."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bimo.evaluate import tfidf
from bimo.evaluate.tfidf import FEWEST, Nearest, TfIdf, features, majority

WORDS = {
    "good": ["fine", "film", "great", "好", "赞", "happy"],
    "bad": ["poor", "差", "dull", "awful", "烂"],
    "3": ["three", "drei", "三"],
}
FILLERS = ["the", "a", "of", "it", "was", "的", "了", "one", "two", "and", "film"]


def reviews(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    chosen, texts, labels = random.Random(seed), [], []
    for _ in range(count):
        label = chosen.choice(list(WORDS))
        own = chosen.choices(WORDS[label] + WORDS["good"][:1], k=2)
        texts.append(" ".join(chosen.sample(own + chosen.choices(FILLERS, k=5), 7)))
        labels.append(label)
    return texts, labels


def test_features_are_words_and_pairs_in_any_case_and_characters_of_chinese() -> None:
    assert len(features("Not good, NOT good")) == 4 + 3
    assert set(features("not GOOD")) == set(features("Not, good"))
    assert len(features("很好看")) == 3 + 2
    assert len(features("")) == len(features("?! ")) == 0


def test_figures_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = reviews(300)
    vectors = TfidfVectorizer(analyzer=lambda text: features(text).tolist(), min_df=FEWEST)
    witness = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(vectors.fit_transform(texts), labels)
    ours, (others, _) = TfIdf(texts, labels, strength=2.0), reviews(70, seed=1)
    assert ours.classes == tuple(witness.classes_) == ("3", "bad", "good")
    assert np.allclose(ours.probabilities(others), witness.predict_proba(vectors.transform(others)), atol=2e-3)


def test_it_learns_what_can_be_learned_and_knows_nothing_of_unknown_words() -> None:
    texts, labels = reviews(300)
    model, (others, truth) = TfIdf(texts, labels), reviews(100, seed=1)
    right = [found == label for found, label in zip(model.predict(others), truth, strict=True)]
    assert sum(right) > 75
    unknown, empty = model.probabilities(["zzz yyy", ""])
    assert np.array_equal(unknown, empty) and unknown.sum() == pytest.approx(1)


def test_a_text_may_have_no_feature_that_is_kept() -> None:
    model = TfIdf(["one", "two", "三"], ["a", "b", "b"])
    assert model.predict(["four"]) == ["b"]


def test_the_majority_is_the_commonest_class_and_the_first_of_equals() -> None:
    assert majority(["b", "a", "b"]) == "b" and majority(["b", "a"]) == "a"


def test_the_nearest_text_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer

    known, asked = reviews(50)[0], reviews(9, seed=1)[0]
    vectors = TfidfVectorizer(analyzer=lambda text: features(text).tolist())
    cosines = vectors.fit_transform(known) @ vectors.transform(asked).T
    nearest = Nearest(known)
    found = nearest.of(asked)
    best = cosines.toarray().max(axis=0)
    assert [cosines[place, number] for number, place in enumerate(found)] == pytest.approx(best.tolist())
    monkeypatch.setattr(tfidf, "LARGEST_TABLE", 1)
    assert nearest.of(asked) == found and nearest.of(known[:7]) == list(range(7))


def test_a_text_that_shares_nothing_gets_the_first_and_chinese_is_compared_by_characters() -> None:
    assert Nearest(["月亮在天上", "太阳很大", "moon"]).of(["zzz", "天上的月", "很大", ""]) == [0, 0, 1, 0]
