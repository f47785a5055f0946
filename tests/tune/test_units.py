"""Batches of units: every pair is whole in one part, and every answer finds its own sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bimo.tune.answers import answer_batch, by_answer, lengths
from bimo.tune.examples import example
from bimo.tune.rewarded import Drawn, PolicyObjective, rollout_batch, rollout_loss, token_logprobs
from bimo.tune.units import (
    Objective,
    Unit,
    Units,
    reference_of,
    unit_batch,
    unit_loss,
    unit_of,
    units_once,
    with_others,
    with_reference,
)

sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))


def make_unit(number: int, prompt: int, first: int, second: int, desirable: bool | None = None) -> Unit:
    """The ids say which unit and which side they are of."""
    shared = [10 * number] * prompt
    return unit_of(
        example(shared, [10 * number + 1] * first, row=number), example(shared, [10 * number + 2] * second, row=number),
        desirable,
    )  # fmt: skip


class Table(nn.Module):
    """A model in which a token's log-probability depends on the token before it alone."""

    fused = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(97, 6, generator=generator))
        self.output_weight = nn.Parameter(torch.randn(97, 6, generator=generator))

    def hidden(self, input_ids: Tensor, *, position_ids: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        return self.embedding[input_ids]


def logprob(model: Table, prompt: list[int], answer: list[int]) -> float:
    """The witness: one answer by itself."""
    ids = torch.tensor([*prompt, *answer])
    table = (model.embedding @ model.output_weight.T).log_softmax(-1).detach()
    return float(table[ids[len(prompt) - 1 : -1], ids[len(prompt) :]].sum())


@given(st.lists(sizes, min_size=2, max_size=9), st.integers(1, 3), st.integers(1, 3))
def test_an_epoch_holds_every_pair_once_and_no_part_divides_one(
    shapes: list[tuple[int, int, int]], rows: int, parts: int
) -> None:
    units = [make_unit(number, *shape) for number, shape in enumerate(shapes, start=1)]
    units = with_reference(units, np.arange(2 * len(units), dtype=np.float32).reshape(-1, 2))
    batches = Units(units, batch_size=rows * parts, length=19, seed=5)
    seen: list[int] = []
    for _ in range(-(-batches.rows_per_epoch // (rows * parts)) + 1):
        batch = next(batches)
        for number in range(parts):
            part = batch.rows(number, parts)
            last = by_answer(part, part.labels[part.loss_mask].float()) / lengths(part).clamp(min=1)
            pairs = last[part.answers].view(-1, 2).long()
            assert (pairs[:, 0] % 10 == 1).all() and (pairs[:, 1] == pairs[:, 0] + 1).all()
            assert torch.equal(part.reference[part.answers].view(-1, 2)[:, 0], (pairs[:, 0] // 10 - 1) * 2.0)
            seen += (pairs[:, 0] // 10).tolist()
    assert set(seen[: len(units)]) <= set(range(1, len(units) + 1)) and set(seen) == set(range(1, len(units) + 1))


@pytest.mark.parametrize("desirable", [None, True])
def test_the_reference_is_each_answer_s_own_likelihood(desirable: bool | None) -> None:
    model = Table()
    units = [make_unit(number, 2 + number % 2, number, 8 - number, desirable) for number in range(1, 8)]
    found = reference_of(model, units, batch_size=2, length=12)
    for unit, row in zip(units, found, strict=True):
        for side, value in zip(unit.sides, row, strict=True):
            prompt = int((~side.counts).sum())
            assert value == pytest.approx(logprob(model, list(side.ids[:prompt]), list(side.ids[prompt:])), abs=1e-4)


def test_at_the_start_nothing_is_preferred() -> None:
    model = Table()
    units = [make_unit(number, 2, number, 8 - number) for number in range(1, 8)]
    units = with_reference(units, reference_of(model, units, 3, 12))
    (batch,) = units_once(units, batch_size=16, length=12)
    loss, figures = unit_loss(model, batch, Objective("dpo"))
    assert loss.item() == pytest.approx(np.log(2), abs=1e-5) and figures["reward_margin"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", ["dpo", "ipo", "orpo"])
@pytest.mark.parametrize("parts", [2, 3])
def test_divided_pairs_add_up_to_the_whole(method: str, parts: int) -> None:
    units = [make_unit(number, 2, number, 8 - number) for number in range(1, 8)]
    units = with_reference(units, np.random.default_rng(1).normal(-20, 3, (7, 2)).astype(np.float32))
    batch = unit_batch(units, [[0, 1], [2], [3, 4], [5], [6], []], 30)
    objective = Objective(method)  # type: ignore[arg-type]
    whole, divided = Table(), Table()
    loss, figures = unit_loss(whole, batch, objective)
    loss.backward()
    value, gathered = 0.0, dict.fromkeys(figures, 0.0)
    for number in range(parts):
        part = batch.rows(number, parts)
        share = part.tokens / batch.tokens
        part_loss, part_figures = unit_loss(divided, part, objective)
        (part_loss * share).backward()
        value += part_loss.item() * share
        gathered = {name: gathered[name] + share * part_figures[name] for name in gathered}
    assert value == pytest.approx(loss.item(), rel=1e-5) and gathered == pytest.approx(figures, rel=1e-4)
    assert torch.allclose(whole.embedding.grad, divided.embedding.grad, atol=1e-6)


def test_rated_answers_stand_beside_answers_to_other_prompts() -> None:
    units = [make_unit(number, 2, 3, number, desirable=number % 2 == 0) for number in range(1, 6)]
    batch = unit_batch(with_reference(units, np.zeros((5, 2), np.float32)), [[0, 3], [1, 4], [2]], 14)
    assert batch.input_ids.shape == (6, 14)
    rated, others = batch.each(lambda tensor: tensor[0::2]), batch.each(lambda tensor: tensor[1::2])
    assert (rated.labels[rated.loss_mask] % 10 == 1).all() and (others.labels[others.loss_mask] % 10 == 2).all()
    assert rated.desirable[rated.answers].tolist() == [False, True, True, False, False]
    loss, figures = unit_loss(Table(), batch, Objective("kto"))
    loss.backward()
    assert figures["kl"] >= 0


def test_answers_of_the_present_weights_have_the_gradient_of_the_policy() -> None:
    model, other = Table(), Table()
    examples = [example([number, 3], list(range(number, number + size))) for number, size in ((5, 2), (6, 4), (7, 3))]
    advantages = [1.0, -0.5, 0.25]
    drawn = [Drawn(one, advantage, 0.1) for one, advantage in zip(examples, advantages, strict=True)]
    batch = rollout_batch(drawn, [[2, 0], [1]], 10, [0.5, 0.1, 3.0, 1.0, 0.0])
    loss, figures = rollout_loss(model, batch, PolicyObjective())
    loss.backward()
    table = (other.embedding @ other.output_weight.T).log_softmax(-1)
    terms = [
        advantage * table[torch.from_numpy(one.ids[1:-1]), torch.from_numpy(one.ids[2:])].sum()
        for one, advantage in zip(examples, advantages, strict=True)
    ]
    (-0.1 * sum(terms)).backward()
    assert torch.allclose(model.embedding.grad, other.embedding.grad, atol=1e-6)
    assert figures["reward"] == 0.5 and figures["clipped"] == 0.0


def test_log_probabilities_come_back_in_the_order_of_the_examples() -> None:
    model = Table()
    examples = [example([number], list(range(number, 12))) for number in range(1, 9)]
    found = token_logprobs(model, examples, 2, 12, temperature=1.0)
    assert [len(values) for values in found] == [11, 10, 9, 8, 7, 6, 5, 4]
    sums = [logprob(model, [number], list(range(number, 12))) for number in range(1, 9)]
    assert [float(values.sum()) for values in found] == pytest.approx(sums, abs=1e-4)
    cooler = token_logprobs(model, examples, 3, 12, temperature=0.5)
    assert not np.allclose(cooler[0], found[0])


def test_an_answer_batch_counts_its_answers() -> None:
    batch = answer_batch([example([1], [2, 3]), example([1, 4], [5])], [[0], [1, 0]], 7)
    assert batch.answers.tolist() == [[True, False], [True, True]]
    assert lengths(batch).tolist() == [[2, 0], [1, 2]] and batch.whole_answers.tolist() == [3, 3]


def test_a_rated_answer_stands_beside_the_next_prompt_s() -> None:
    rated = [
        example([1, 2], [5, 6], row=0, target=1.0), example([1, 2], [7], row=1),
        example([3], [8, 9, 10, 11], row=2, target=1.0),
    ]  # fmt: skip
    units = with_others(rated, length=4)
    assert [unit.sides[1].ids.tolist() for unit in units] == [[1, 2, 8, 9, 10], [1, 2, 8, 9, 10], [3, 5, 6]]
    assert [unit.desirable for unit in units] == [True, False, True]
    assert [unit.size for unit in units] == [4, 4, 4] and units[0].sides[0].ids.tolist() == [1, 2, 5, 6]
