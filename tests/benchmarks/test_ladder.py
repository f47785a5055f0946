"""The search for the shortest budget that reaches a loss, on made-up runs."""

from __future__ import annotations

from benchmarks.training.ladder import answer, next_rung

LADDER = [10.0, 12.5, 15.6, 19.5, 24.4, 30.5, 38.1]


def climb(losses: dict[float, float | None], target: float, start: float) -> tuple[float | None, bool, int]:
    known: dict[float, float | None] = {}
    while (rung := next_rung(LADDER, known, target, start)) is not None:
        assert rung not in known, "a run that is known is never repeated"
        known[rung] = losses[rung]
    return *answer(LADDER, known, target), len(known)


def test_the_shortest_budget_is_found_from_any_start() -> None:
    losses: dict[float, float | None] = {rung: 3.0 - 0.1 * i for i, rung in enumerate(LADDER)}
    losses[10.0] = None  # too short to train anything
    for expected in LADDER[1:]:
        target = losses[expected]
        assert target is not None
        for start in (1.0, 18.0, 500.0):
            budget, exact, runs = climb(losses, target, start)
            assert (budget, exact) == (expected, True)
            assert runs <= 6


def test_a_loss_that_no_budget_reaches_is_said_to_be_out_of_reach() -> None:
    budget, exact, _ = climb(dict.fromkeys(LADDER, 2.5), 2.4, 18.0)
    assert budget is None and not exact


def test_a_search_that_was_cut_off_gives_an_upper_bound() -> None:
    assert answer(LADDER, {30.5: 2.0}, 2.1) == (30.5, False)
    assert answer(LADDER, {30.5: 2.0, 24.4: 2.2}, 2.1) == (30.5, True)


def test_the_shortest_rung_needs_no_shorter_one_to_be_certain() -> None:
    budget, exact, runs = climb(dict.fromkeys(LADDER, 1.0), 2.0, 10.0)
    assert (budget, exact, runs) == (10.0, True, 1)
