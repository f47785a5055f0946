"""Shared text: the hashes find what comparing slices one by one finds, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bimo.batches.shards import Tokens, write_tokens
from bimo.train import overlap
from bimo.train.overlap import SPAN, find_overlap

EOS, SIZE = 3, 11  # so few ids that short spans repeat all the time


def documents(count: int, seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(EOS + 1, SIZE) for _ in range(chance.randint(0, 170))] for _ in range(count)]


def shard(folder: Path, name: str, texts: list[list[int]]) -> Tokens:
    encoded = ((f"{name}-{number}", len(ids), ids) for number, ids in enumerate(texts))
    return write_tokens(folder, name, encoded, tokenizer_hash="", data_hash="", vocab_size=SIZE, eos_id=EOS)


def shared_positions(train: Tokens, validation: Tokens) -> set[int]:
    """The positions of the validation stream inside a span that training has: the definition."""
    ours, theirs = validation.ids.tolist(), train.ids.tolist()
    known = {tuple(theirs[start : start + SPAN]) for start in range(len(theirs) - SPAN + 1)}
    inside: set[int] = set()
    for start in range(len(ours) - SPAN + 1):
        span = tuple(ours[start : start + SPAN])
        if span in known and EOS not in span:
            inside |= set(range(start, start + SPAN))
    return inside


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize("times", [0, 1, 2, 3, 5])
def test_spans_are_counted_exactly(tmp_path: Path, times: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A span that training has three times is a formula; blocks and the bounds of documents change nothing."""
    monkeypatch.setattr(overlap, "BLOCK", block)
    (formula,) = documents(1, seed=8)
    assert len(formula) > SPAN
    texts, held_out = documents(23, seed=4), documents(7, seed=5)
    for number in range(times):
        texts[3 * number] += formula
    held_out[2] = [7, 7, 7, *formula, *held_out[2]]
    train, validation = shard(tmp_path, "train", texts), shard(tmp_path, "validation", held_out)
    inside = shared_positions(train, validation)
    assert len(inside) >= (SPAN if times else 0) and bool(inside) == bool(times)
    found = find_overlap(train, validation)
    assert (found.leaked, found.formulas) == ((0, len(inside)) if times >= 3 else (len(inside), 0))
    assert found.tokens == validation.count and found.documents == () and not found.sampled
    assert found.example == ("validation-2 and train-0" if 0 < times < 3 else "")


def test_equal_documents_are_named(tmp_path: Path) -> None:
    texts, held_out = documents(23, seed=4), documents(7, seed=5)
    long = next(number for number, ids in enumerate(held_out) if len(ids) > 90)
    texts[11], texts[12] = held_out[long], [5, 6, 7]
    alike = next(number for number, ids in enumerate(held_out) if len(ids) > 90 and number != long)
    texts[13] = [*held_out[alike][:-1], 6 if held_out[alike][-1] == 5 else 5]  # all of another one but its end
    held_out[(long + 1) % 7] = [5, 6, 7]  # equal too, but so short that it says nothing
    found = find_overlap(shard(tmp_path, "train", texts), shard(tmp_path, "validation", held_out))
    assert found.documents == (f"validation-{long}",)


def test_texts_shorter_than_a_span(tmp_path: Path) -> None:
    found = find_overlap(shard(tmp_path, "train", [[4, 5]]), shard(tmp_path, "validation", [[4, 5]]))
    assert (found.documents, found.leaked, found.formulas, found.tokens) == ((), 0, 0, 3)
