from __future__ import annotations

import itertools
import math
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.batches.loader import Batch, PackedBatches, validation_batches
from bimo.batches.shards import Tokens, write_tokens
from bimo.errors import DataError

EOS = 2
SHAPES = {"batch_size": 2, "context_length": 5}


def make(lengths: list[int]) -> Tokens:
    """A stream of documents of these lengths in which every id but the end of text says its own position."""
    ids = 1000 + np.arange(sum(lengths) + len(lengths), dtype=np.uint16)
    ids[np.cumsum([0, *(1 + length for length in lengths[:-1])])] = EOS
    return cast(Tokens, SimpleNamespace(ids=ids, count=ids.size, eos_id=EOS))


@pytest.fixture
def tokens() -> Tokens:
    return make([3, 0, 11, 7, 4])  # 30 ids


def check_rows(batch: Batch, stream: list[int], context_length: int) -> None:
    """Compare with the definition, one position after the other."""
    for row, start in enumerate(batch.positions.tolist()):
        segment = position = 0
        for step in range(context_length):
            id = stream[(start + step) % len(stream)]
            if id == EOS and step:
                segment, position = segment + 1, 0
            found = (batch.input_ids, batch.labels, batch.segment_ids, batch.position_ids)
            wanted = [id, stream[(start + step + 1) % len(stream)], segment, position]
            assert [tensor[row, step].item() for tensor in found] == wanted
            position += 1


def counted_labels(batch: Batch, count: int) -> list[int]:
    """The stream positions whose labels count in this batch."""
    steps = torch.arange(batch.labels.shape[1])
    return ((batch.positions[:, None] + steps) % count)[batch.loss_mask].tolist()


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], int, int]:
    lengths = draw(st.lists(st.integers(0, 17), min_size=1, max_size=9))
    count = sum(lengths) + len(lengths)
    context_length = draw(st.integers(1, min(7, count)))
    return lengths, draw(st.integers(1, count // context_length)), context_length


@given(streams(), st.integers(0, 3))
def test_every_position_is_a_label_once_an_epoch(stream: tuple[list[int], int, int], seed: int):
    lengths, batch_size, context_length = stream
    tokens = make(lengths)
    batches = PackedBatches(tokens, batch_size=batch_size, context_length=context_length, seed=seed)
    assert batches.rows_per_epoch == math.ceil(tokens.count / context_length)
    assert batches.batches_per_epoch == math.ceil(batches.rows_per_epoch / batch_size)
    rows: list[list[int]] = []
    while len(rows) < 3 * batches.rows_per_epoch:
        batch = next(batches)
        assert batch.input_ids.shape == (batch_size, context_length)
        check_rows(batch, tokens.ids.tolist(), context_length)
        start, mask = batch.positions, batch.loss_mask
        rows += [((start[row] + mask[row].nonzero()[:, 0]) % tokens.count).tolist() for row in range(batch_size)]
    for epoch in range(3):
        rows_of_epoch = rows[epoch * batches.rows_per_epoch : (epoch + 1) * batches.rows_per_epoch]
        assert Counter(itertools.chain(*rows_of_epoch)) == Counter(range(tokens.count))


def test_a_shard_on_disk_gives_the_batches_of_its_ids(tmp_path: Path):
    documents = [("a", 9, [5, 7, 11, 13]), ("b", 3, [17, 19, 23])]
    shard = write_tokens(tmp_path, "x", documents, tokenizer_hash="t", data_hash="d", vocab_size=70_000, eos_id=EOS)
    in_memory = cast(Tokens, SimpleNamespace(ids=np.array(shard.ids), count=9, eos_id=EOS))
    loaders = [PackedBatches(tokens, batch_size=2, context_length=3, seed=0) for tokens in (shard, in_memory)]
    for ours, theirs in islice(zip(*loaders, strict=True), 7):
        assert torch.equal(ours.labels, theirs.labels)
    assert next(validation_batches(shard, 1, 9)).input_ids.tolist() == [[EOS, 5, 7, 11, 13, EOS, 17, 19, 23]]


def test_types_and_moves(tokens: Tokens):
    batch = next(PackedBatches(tokens, **SHAPES, seed=0)).to("cpu")
    kinds = [torch.int64, torch.int64, torch.bool, torch.int64, torch.int32, torch.int64]
    assert [getattr(batch, name).dtype for name in Batch.__dataclass_fields__] == kinds
    assert all(getattr(batch, name).is_contiguous() for name in Batch.__dataclass_fields__)
    assert batch.to("meta").labels.device.type == "meta"
    assert batch.tokens == len(counted_labels(batch, tokens.count))


def test_the_order_follows_from_seed_and_epoch(tokens: Tokens):
    def starts(seed: int) -> list[list[int]]:
        return [batch.positions.tolist() for batch in islice(PackedBatches(tokens, **SHAPES, seed=seed), 6)]

    assert starts(7) == starts(7)
    assert starts(7) != starts(8)
    epochs = starts(7)[:3], starts(7)[3:]  # 30 ids are 6 rows, 3 batches an epoch
    assert epochs[0] != epochs[1]
    assert {start % 5 for start in itertools.chain(*epochs[0])} != {
        start % 5 for start in itertools.chain(*epochs[1])
    }  # cut elsewhere


@given(before=st.integers(0, 13))
def test_a_restored_state_goes_on_where_it_was(before: int):
    tokens = make([3, 0, 11, 7, 6])  # 32 ids are 7 rows: batches straddle epochs
    straight, resumed = (PackedBatches(tokens, **SHAPES, seed=1) for _ in range(2))
    for _ in range(before):
        next(straight)
    state = straight.state()
    assert state == {"epoch": before * 2 // 7, "batch": before}
    resumed.load_state(state)
    for ours, theirs in zip(islice(straight, 9), islice(resumed, 9), strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.loss_mask, theirs.loss_mask)
    assert straight.state() == resumed.state()


@pytest.mark.parametrize("state", [{}, {"epoch": 0}, {"epoch": 5, "batch": 6}, {"epoch": 0, "batch": -1}])
def test_a_state_that_does_not_fit_is_refused(tokens: Tokens, state: dict[str, int]):
    batches = PackedBatches(tokens, **SHAPES, seed=0)
    next(batches)
    with pytest.raises(DataError, match="does not fit this data"):
        batches.load_state(state)
    assert batches.state() == {"epoch": 0, "batch": 1}


def test_a_text_smaller_than_one_batch_is_refused(tokens: Tokens):
    assert next(PackedBatches(tokens, batch_size=6, context_length=5, seed=0)).tokens == 30
    with pytest.raises(DataError, match=r"smaller than one batch.*7 x 5 = 35 tokens; got 30 tokens"):
        PackedBatches(tokens, batch_size=7, context_length=5, seed=0)


@given(streams(), st.integers(1, 11))
def test_validation_reads_every_label_once_in_order(stream: tuple[list[int], int, int], batch_size: int):
    lengths, _, context_length = stream
    tokens = make(lengths)
    batches = list(validation_batches(tokens, batch_size, context_length))
    for batch in batches:
        assert batch.input_ids.shape == (batch_size, context_length)
        check_rows(batch, tokens.ids.tolist(), context_length)
    labels = [label for batch in batches for label in counted_labels(batch, tokens.count)]
    assert labels == list(range(tokens.count))


def test_limited_validation_is_spread_over_the_whole_stream(tokens: Tokens):
    batches = list(validation_batches(tokens, 2, 5, max_tokens=16))
    assert [batch.positions.tolist() for batch in batches] == [[0, 10], [20, 0]]
    assert [batch.tokens for batch in batches] == [10, 5]
    assert sum(batch.tokens for batch in validation_batches(tokens, 2, 5, max_tokens=1)) == 5
    assert sum(batch.tokens for batch in validation_batches(tokens, 2, 5, max_tokens=99)) == 30
