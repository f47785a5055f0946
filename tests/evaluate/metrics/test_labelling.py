"""Labels of words: figures by hand, against scikit-learn and seqeval, and what they are compared with."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from bimo.evaluate.known_labels import commonest_label, commonest_of_word, longest_known
from bimo.evaluate.metrics import METRICS

WANTED = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O", "B-LOC"]]
SAID = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "O", "B-LOC"]]


def test_figures_by_hand() -> None:
    # Entities: 3 there, 4 said, of which John Smith and the last place are right. Labels: 5 of 7.
    value = {name: METRICS[name](SAID, WANTED) for name in METRICS if METRICS[name].reads == "labels"}
    assert value["entity_precision"] == pytest.approx(2 / 4)
    assert value["entity_recall"] == pytest.approx(2 / 3)
    assert value["entity_f1"] == pytest.approx(4 / 7)
    assert value["word_accuracy"] == pytest.approx(5 / 7)
    # B-PER 2/3, I-PER 1, O 4/5, B-LOC 1/2
    assert value["word_macro_f1"] == pytest.approx((2 / 3 + 1 + 4 / 5 + 1 / 2) / 4)
    assert METRICS["entity_f1"]([["O", "O"]], [["O", "O"]]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_seqeval_and_scikit_learn_give_the_same(seed: int) -> None:
    seqeval, sklearn = pytest.importorskip("seqeval.metrics"), pytest.importorskip("sklearn.metrics")
    chance = random.Random(seed)
    names = ["O", "B-A", "I-A", "B-人", "I-人"]
    wanted = [chance.choices(names, k=chance.randint(1, 7)) for _ in range(23)]
    said = [[one if chance.random() < 0.7 else chance.choice(names) for one in labels] for labels in wanted]
    for name in ("precision", "recall", "f1"):
        theirs = getattr(seqeval, f"{name}_score")(wanted, said)
        assert METRICS[f"entity_{name}"](said, wanted) == pytest.approx(theirs)
    flat = [[*chain.from_iterable(labels)] for labels in (wanted, said)]
    assert METRICS["word_accuracy"](said, wanted) == pytest.approx(sklearn.accuracy_score(*flat))
    assert METRICS["word_macro_f1"](said, wanted) == pytest.approx(sklearn.f1_score(*flat, average="macro"))


def test_what_they_are_compared_with() -> None:
    known = [
        (["New", "York", "is", "new"], ["B-LOC", "I-LOC", "O", "O"]),
        (["York", "is", "old"], ["B-PER", "O", "O"]),
        (["York", "is", "York"], ["B-LOC", "O", "B-LOC"]),
    ]
    asked = [["York", "and", "New", "York", "is"], ["new"]]
    assert commonest_label(known, asked) == [["O"] * 5, ["O"]]
    assert commonest_of_word(known, asked) == [["B-LOC", "O", "B-LOC", "B-LOC", "O"], ["O"]]
    assert longest_known(known, asked) == [["B-LOC", "O", "B-LOC", "I-LOC", "O"], ["O"]]
    assert longest_known([(["a"], ["O"])], asked) == [["O"] * 5, ["O"]]
