"""A mixture repeats and leaves out training documents, and never touches what is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bimo.errors import ConfigError
from bimo.text.mix import Mixed, Mixture
from bimo.text.source import open_source
from bimo.text.split import split_source


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)  # ids decide what is taken: they must not hold the number of the test's folder
    for name, words in (("英文", "the moon of the king"), ("b", "却说曹操引兵而来")):
        (tmp_path / name).mkdir()
        for number in range(40):
            (tmp_path / name / f"{number}.txt").write_text(f"{words} {number} " * 20, encoding="utf-8")
    return ["英文", "b"]


def test_whole_parts_repeat_and_fractions_take_a_share(folders: list[str]) -> None:
    split = split_source(open_source(*folders), seed=3)
    mixed = Mixed(split.train, Mixture(folders, [2.5, 0.25], seed=3))
    counts = Counter(document.id for document in mixed)
    first = [counts[id] for id in split.train.ids if id.startswith(folders[0])]
    second = [counts[id] for id in split.train.ids if id.startswith(folders[1])]
    assert set(first) == {2, 3} and 0.3 < first.count(3) / len(first) < 0.7
    assert set(second) == {0, 1} and 0.1 < second.count(1) / len(second) < 0.45
    assert mixed.documents == sum(counts.values()) == len(mixed.ids)
    assert mixed.bytes == sum(len(document.text.encode()) for document in mixed)


def test_a_larger_share_holds_the_smaller_one() -> None:
    ids = [f"a/{number}.txt" for number in range(500)]
    taken = [{id for id in ids if Mixture(["a", "b"], [w, 1], seed=1).copies(id)} for w in (0.2, 0.5, 0.9)]
    assert taken[0] < taken[1] < taken[2]
    assert abs(len(taken[1]) / 500 - 0.5) < 0.1


def test_names_are_whole_names() -> None:
    mixture = Mixture(["wiki", "wiki-en", "a/b", "x.jsonl"], [1, 2, 3, 4], seed=0)
    ids = ["wiki/1.txt", "wiki-en/1.txt", "a/b/c.txt", "x.jsonl:17", "x.jsonl#3"]
    assert [mixture.weight_of(id) for id in ids] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.1], [0.0, 0.0], [1.0, float("nan")]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="reading.weights is wrong"):
        Mixture(["a", "b"], weights, seed=0)


def test_a_mixture_without_any_document_is_refused(folders: list[str]) -> None:
    split = split_source(open_source(*folders), seed=3)
    with pytest.raises(ConfigError, match="leave no training text"):
        Mixed(split.train, Mixture(folders, [1e-9, 0], seed=3))
