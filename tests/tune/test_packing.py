from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.batches.loader import Batch
from bimo.errors import DataError
from bimo.models import llama
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.objective import mean_nats, next_token_loss
from bimo.train.shown import COUNTS, coloured
from bimo.tune.examples import Example, example
from bimo.tune.packing import PackedExamples, pack, packed_once


def make(sizes: list[int]) -> list[Example]:
    """Examples of these sizes whose ids say which example they belong to and where they stand in it."""
    made = []
    for number, size in enumerate(sizes):
        ids = 100 * (number + 1) + np.arange(size + 1)
        counts = np.arange(size + 1) % 3 == 1
        made.append(Example(ids, counts, row=number))
    return made


@st.composite
def sizes_and_length(draw: st.DrawFn) -> tuple[list[int], int]:
    length = draw(st.integers(1, 23))
    return draw(st.lists(st.integers(1, length), min_size=1, max_size=30)), length


def segments_of(batch: Batch) -> list[tuple[list[int], list[int], list[int], list[bool]]]:
    """Inputs, labels, positions and mask of each segment of each row."""
    found = []
    for row in range(len(batch.labels)):
        for segment in batch.segment_ids[row].unique().tolist():
            here = batch.segment_ids[row] == segment
            tensors = (batch.input_ids, batch.labels, batch.position_ids, batch.loss_mask)
            found.append(tuple(tensor[row][here].tolist() for tensor in tensors))
    return found


def check_batch(batch: Batch, examples: list[Example]) -> list[int]:
    """Compare each segment with the example it is; the examples of the batch, padding left out."""
    seen = []
    for inputs, labels, positions, mask in segments_of(batch):
        assert positions == list(range(len(positions)))
        if inputs[0] == 0:
            assert not any(mask) and not any(inputs) and not any(labels)
            continue
        number = inputs[0] // 100 - 1
        wanted = examples[number]
        assert [*inputs, labels[-1]] == wanted.ids.tolist()
        assert labels == wanted.ids[1:].tolist() and mask == wanted.counts[1:].tolist()
        seen.append(number)
    return seen


@given(sizes_and_length())
def test_every_thing_is_packed_once_and_fits(given: tuple[list[int], int]):
    sizes, length = given
    rows = pack(sizes, length)
    assert sorted(place for row in rows for place in row) == list(range(len(sizes)))
    assert all(sum(sizes[place] for place in row) <= length for row in rows)
    # No two rows could be one: what best fit, or first fit, never leaves behind.
    totals = sorted(sum(sizes[place] for place in row) for row in rows)
    assert len(totals) < 2 or totals[0] + totals[1] > length


@given(sizes_and_length(), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_shows_every_example_once(given: tuple[list[int], int], batch_size: int, seed: int):
    sizes, length = given
    examples = make(sizes)
    batches = PackedExamples(examples, batch_size=batch_size, length=length, seed=seed)
    assert batches.labels_per_epoch == sum(example.learned for example in examples)
    rows: list[list[int]] = []
    while len(rows) < 3 * batches.rows_per_epoch:
        batch = next(batches)
        assert batch.input_ids.shape == (batch_size, length)
        for row in range(batch_size):
            rows.append(check_batch(batch.rows(row, batch_size), examples))
    for epoch in range(3):
        shown = rows[epoch * batches.rows_per_epoch : (epoch + 1) * batches.rows_per_epoch]
        assert sorted(number for row in shown for number in row) == list(range(len(sizes)))


@given(sizes_and_length(), st.integers(1, 4), st.integers(0, 9))
def test_a_saved_place_goes_on_the_same(given: tuple[list[int], int], batch_size: int, taken: int):
    sizes, length = given
    straight, resumed = (PackedExamples(make(sizes), batch_size=batch_size, length=length, seed=5) for _ in range(2))
    for _ in range(taken):
        next(straight)
    resumed.load_state(straight.state())
    for _ in range(4):
        one, other = next(straight), next(resumed)
        assert torch.equal(one.input_ids, other.input_ids) and torch.equal(one.segment_ids, other.segment_ids)


def test_epochs_differ_and_seeds_differ():
    sizes = [1, 2, 2, 3, 3, 3, 5, 7] * 5
    orders = []
    for seed in (0, 1):
        batches = PackedExamples(make(sizes), batch_size=1, length=11, seed=seed)
        for _ in range(2):
            orders.append([tuple(next(batches).input_ids[0].tolist()) for _ in range(batches.rows_per_epoch)])
    assert len({tuple(order) for order in orders}) == 4


def test_a_place_of_other_examples_is_refused():
    batches = PackedExamples(make([3, 5]), batch_size=2, length=7, seed=0)
    with pytest.raises(DataError, match="does not fit"):
        batches.load_state({"epoch": 7, "batch": 1})
    with pytest.raises(DataError, match="nothing to learn"):
        PackedExamples([], batch_size=2, length=7, seed=0)


def test_packed_examples_do_not_see_each_other():
    """The loss of packed examples is that of each alone, weighted by its labels."""
    config = llama.Config(
        vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=32, model_type="qwen3",
    )  # fmt: skip
    model = llama.Model(config).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    generator = np.random.default_rng(0)
    examples = [
        example(generator.integers(1, 37, prompt).tolist(), generator.integers(1, 37, answer).tolist())
        for prompt, answer in [(2, 3), (5, 1), (7, 4), (1, 2), (3, 3)]
    ]
    (together,) = packed_once(examples, 5, 13)
    assert len(together.labels) == 3
    alone = [packed_once([one], 1, one.size)[0] for one in examples]
    labels = [batch.tokens for batch in alone]
    wanted = sum(mean_nats(model, [batch]) * n for batch, n in zip(alone, labels, strict=True)) / sum(labels)
    assert labels == [3, 1, 4, 2, 3]
    assert mean_nats(model, [together]) == pytest.approx(wanted, abs=1e-5)
    assert next_token_loss(model, together)[0].item() == pytest.approx(wanted, abs=1e-5)


def test_an_answer_without_a_prompt_does_not_learn_its_first_token():
    assert example([], [4, 5, 6]).counts.tolist() == [False, True, True]
    assert example([4], [5, 6], row=3, target=1.0).counts.tolist() == [False, True, True]


def test_a_packed_row_is_shown_example_by_example_without_padding(tokenizer: Tokenizer):
    pairs = [("where is the moon?", "月亮在天上"), ("say", "it")]
    examples = [example([tokenizer.eos_id, *tokenizer.encode(one)], tokenizer.encode(other)) for one, other in pairs]
    (batch,) = packed_once(examples, 1, sum(one.size for one in examples) + 9)
    shown = coloured(batch, 0, tokenizer, brackets=True)
    assert shown.plain == "⟦<|endoftext|>\nwhere is the moon?⟧月亮在天上\n⟦<|endoftext|>\nsay⟧it"
    green = [shown.plain[span.start : span.end] for span in shown.spans if span.style == COUNTS]
    assert "".join(green) == "月亮在天上it"
