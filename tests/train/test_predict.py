"""The forecast of bits per byte: monotone where it is used, saturating where text is repeated, anchored in the text."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.batches.shards import Tokens, write_tokens
from bimo.text.document import Document
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from bimo.train.anchor import Anchor, measure_anchor
from bimo.train.predict import (
    LAW,
    PAIRS,
    effective_parameters,
    effective_tokens,
    fitting_parameters,
    predict,
    tokens_to_reach,
)

anchors = st.builds(
    Anchor,
    st.floats(0.5, 6),
    st.integers(20_000, 10**10),
    st.floats(1, 6),
    st.sampled_from([1024, 2048, 8192]),
    copying=st.floats(0.05, 1),
)
sizes, counts = st.floats(1e5, 1e9), st.floats(2e4, 1e11)
TEXT = Anchor(2.2, 1_500_000, 3.0, 2048)


@given(anchors, sizes, counts, st.floats(1.01, 100))
def test_more_of_anything_never_hurts(anchor: Anchor, parameters: float, tokens: float, factor: float) -> None:
    value = predict(anchor, parameters, tokens).value
    assert math.isfinite(value) and value > 0
    assert predict(anchor, parameters, factor * tokens).value <= value * (1 + 1e-12)
    assert predict(anchor, factor * parameters, tokens).value <= value * (1 + 1e-12)


def test_more_helps_within_the_fitted_range() -> None:
    values = [predict(TEXT, size, count).value for size, count in ((3e5, 3e5), (3e5, 2e6), (2e6, 2e6))]
    assert values[0] > 1.03 * values[1] > 1.03 * 1.02 * values[2]


@given(anchors, sizes, counts)
def test_the_interval_holds_the_value_and_widens_outside_the_fit(
    anchor: Anchor, parameters: float, tokens: float
) -> None:
    forecast = predict(anchor, parameters, tokens)
    assert forecast.low < forecast.value < forecast.high
    inside = predict(anchor, 1e6, 1e6)
    assert forecast.high / forecast.low >= inside.high / inside.low * (1 - 1e-9)


@given(st.floats(1e3, 1e9), st.floats(1, 1e4))
def test_repetition_saturates(unique: float, epochs: float) -> None:
    worth = effective_tokens(epochs * unique, unique)
    assert unique * (1 - 1e-9) <= worth <= min(epochs, 16.0) * unique * (1 + 1e-9)
    assert effective_tokens(unique / 2, unique) == unique / 2


def test_four_epochs_are_nearly_fresh_and_a_hundred_are_not() -> None:
    assert effective_tokens(4e6, 1e6) > 3.7e6
    assert effective_tokens(100e6, 1e6) < 16.1e6


def test_parameters_that_the_text_cannot_teach_are_worth_little() -> None:
    assert effective_parameters(1e5, 1e6) == 1e5
    assert 1e6 < effective_parameters(3e6, 1e6) < 3e6
    assert effective_parameters(1e9, 1e6) == pytest.approx(effective_parameters(1e10, 1e6), rel=1e-3)


def test_more_tokens_fill_larger_models() -> None:
    filled = [fitting_parameters(tokens) for tokens in (1e5, 1e6, 1e7, 1e8)]
    assert filled == sorted(filled) and filled[-1] > 5 * filled[0]


@given(anchors, sizes, counts)
def test_the_tokens_to_reach_a_value_reach_it(anchor: Anchor, parameters: float, tokens: float) -> None:
    target = predict(anchor, parameters, tokens).value
    needed = tokens_to_reach(anchor, parameters, target * (1 + 1e-9), 2e11)
    assert needed is not None and predict(anchor, parameters, needed).value <= target * (1 + 1e-8)
    below = 0.99 * predict(anchor, parameters, 2e11).value
    assert tokens_to_reach(anchor, parameters, below, 2e11) is None


def test_a_start_at_word_pairs_is_not_unlearned() -> None:
    short, long = (predict(TEXT, 1e6, tokens, from_pairs=True).value for tokens in (2_000, 2e6))
    assert long < short < predict(TEXT, 1e6, 2_000).value and short == pytest.approx(PAIRS * TEXT.bits_per_byte)
    assert long == predict(TEXT, 1e6, 2e6).value


@given(anchors, counts, counts, st.floats(0.1, 0.99))
def test_what_is_easy_or_copied_is_easier_still_to_who_has_read_much(
    anchor: Anchor, tokens: float, more: float, easier: float
) -> None:
    tokens, more = sorted((tokens, more))
    easy = dataclasses.replace(anchor, bits_per_byte=easier * anchor.bits_per_byte)
    copied = dataclasses.replace(anchor, copying=easier * anchor.copying)
    for other, factor in ((easy, easier), (copied, 1.0)):
        gains = [predict(other, 1e6, read).value / predict(anchor, 1e6, read).value / factor for read in (tokens, more)]
        assert gains[1] <= gains[0] * (1 + 1e-9)


def test_the_scale_is_the_anchor() -> None:
    twice = dataclasses.replace(TEXT, bits_per_byte=2 * TEXT.bits_per_byte, bytes_per_token=TEXT.bytes_per_token / 2)
    assert predict(twice, 1e6, 1e6).value == pytest.approx(2 * predict(TEXT, 1e6, 1e6).value)
    assert 0 < LAW.floor < 1 and LAW.spread > 0


def shard(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> Tokens:
    documents = ((str(n), len(text.encode()), tokenizer.encode(text)) for n, text in enumerate(texts))
    return write_tokens(
        folder, "train", documents, tokenizer_hash="t", data_hash="d", vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["the", "king", "said", "good", "night", "my", "lord"], list("曹操引兵而来诸葛亮")])
def test_a_text_is_as_hard_as_its_entropy(words: list[str], tmp_path: Path) -> None:
    """Words drawn at random: the anchor cannot be below their entropy, and order makes it lower."""
    chance, joint = np.random.default_rng(0), "" if len(words[0]) == 1 else " "
    random = [joint.join(words[i] for i in chance.integers(len(words), size=400)) for _ in range(14)]
    ordered = [joint.join((words * 60)[:400]) for _ in range(14)]
    found = []
    for name, texts in (("random", random), ("ordered", ordered)):
        tokenizer = train_tokenizer(iter(texts), 300)
        held_out = [Document(str(n), text, "") for n, text in enumerate(texts[12:])]
        found.append(measure_anchor(shard(tmp_path / name, tokenizer, texts[:12]), held_out, tokenizer))
    size = sum(len(text.encode()) for text in random[12:])
    entropy = 800 * math.log2(len(words)) / size
    assert entropy < found[0].bits_per_byte < 2 * entropy
    assert found[1].bits_per_byte < 0.2 * found[0].bits_per_byte
    assert found[0].unique_tokens > 1000 and found[0].counting_seconds > 0


def test_what_repeats_itself_is_told_from_what_does_not(tmp_path: Path) -> None:
    """Words in an order drawn for each document and repeated there: no n-gram of other documents knows it."""
    words, chance = ["the", "king", "said", "good", "night", "my", "sweet", "queen"], np.random.default_rng(0)
    repeated = [" ".join([" ".join(chance.permutation(words))] * 40) for _ in range(14)]
    fresh = [" ".join(" ".join(chance.permutation(words)) for _ in range(40)) for _ in range(14)]
    copying = []
    for name, texts in (("repeated", repeated), ("fresh", fresh)):
        tokenizer = train_tokenizer(iter(texts), 300)
        held_out = [Document(str(n), text, "") for n, text in enumerate(texts[12:])]
        copying.append(measure_anchor(shard(tmp_path / name, tokenizer, texts[:12]), held_out, tokenizer).copying)
    assert copying[0] < 0.3 and 0.9 < copying[1] <= 1


def test_no_held_out_byte_is_counted_twice(tmp_path: Path) -> None:
    """Only the beginning of long documents is scored; the figure is per byte of what is."""
    text = "to be or not to be " * 50_000
    tokenizer = train_tokenizer(iter([text]), 300)
    train = shard(tmp_path, tokenizer, [text[:60_000]])
    long, short = (measure_anchor(train, [Document("a", one, "")], tokenizer) for one in (text, text[:60_000]))
    assert long.bits_per_byte == pytest.approx(short.bits_per_byte, abs=0.01)
