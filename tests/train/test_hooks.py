"""Hooks, each by itself on a made-up course of training."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.train import hooks
from bimo.train.hooks import Best, Checkpointing, Deadline, Validate, progress_state
from bimo.train.loop import Progress


def course(values: list[float], patience: int, steps: int = 100, every: int = 10) -> tuple[Progress, Best, list[int]]:
    """Validate a training whose validations give ``values``; returns the steps at which weights were kept, too."""
    progress, best, kept = Progress(steps=steps), Best(), []
    remaining = iter(values)
    hook = Validate(
        lambda: next(remaining), lambda: kept.append(progress.step), every=every, patience=patience, best=best
    )
    while progress.step < steps and not progress.stop:
        progress.step += 1
        hook(progress)
    return progress, best, kept


def test_the_best_is_kept_and_patience_ends() -> None:
    progress, best, kept = course([5, 4, 3, 3.5, 3.2, 3.1, 9, 9, 9, 9], patience=3)
    assert kept == [10, 20, 30] and (best.bits_per_byte, best.step) == (3, 30)
    assert progress.step == 60 and "since step 30" in progress.stop


def test_a_new_best_resets_patience_and_zero_never_stops() -> None:
    progress, best, kept = course([5, 6, 6, 4, 6, 6, 3, 6, 6, 6], patience=3)
    assert kept == [10, 40, 70] and progress.step == 100 and progress.stop
    progress, best, _ = course([5, 6, 6, 6, 6, 6, 6, 6, 6, 6], patience=0)
    assert progress.step == 100 and not progress.stop and best.step == 10


def test_a_bad_beginning_does_not_stop_a_training() -> None:
    progress, _, kept = course([5, 6, 4, 3, 2, 2, 2, 2, 2, 1], patience=1, steps=200, every=20)
    assert progress.step > 60 and 60 in kept


def test_the_last_step_is_validated_even_off_the_beat() -> None:
    _, best, kept = course([3, 2], patience=4, steps=13)
    assert kept == [10, 13] and best.bits_per_byte == 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of these hooks alone: an event loop in another thread of the process would sleep for a day by it."""
    now = [0.0]
    monkeypatch.setattr(hooks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def deadline_course(
    clock: list[float], pace: Callable[[int], float], end: float, most: int | None = None, every: int = 10
) -> tuple[Progress, list[str]]:
    """100 steps; ``pace`` says from the steps done how many seconds the next one takes."""
    progress, events = Progress(steps=100), []
    hook = Deadline(end, events.append, every=every, most=most)
    while progress.step < progress.steps:
        clock[0] += pace(progress.step)
        progress.step += 1
        progress.checkpoint = False
        hook(progress)
        assert progress.checkpoint == bool(events and "step " + str(progress.step) in events[-1])
    return progress, events


def test_a_machine_as_fast_as_planned_is_left_alone(clock: list[float]) -> None:
    progress, events = deadline_course(clock, lambda _: 1.0, end=101.0)
    assert progress.steps == 100 and not events


def test_a_slower_machine_shortens_the_schedule_and_keeps_the_deadline(clock: list[float]) -> None:
    progress, events = deadline_course(clock, lambda _: 2.0, end=100.0)
    assert 48 <= progress.steps <= 50 and clock[0] <= 100.0
    assert len(events) == 1 and "shortened from 100 to" in events[0]


def test_a_faster_machine_lengthens_the_schedule_and_uses_the_time(clock: list[float]) -> None:
    progress, events = deadline_course(clock, lambda _: 0.7, end=101.0, most=1000)
    assert 140 <= progress.steps <= 145 and 97 < clock[0] <= 101.0
    assert [event[:9] for event in events] == ["step 20: ", "step 30: "]
    assert all("faster" in event and "lengthened" in event for event in events)
    assert "lengthened from 100 to" in events[0]


@pytest.mark.parametrize("most", [None, 100], ids=["steps pinned", "no more to learn"])
def test_a_schedule_that_is_long_enough_is_not_lengthened(clock: list[float], most: int | None) -> None:
    progress, events = deadline_course(clock, lambda _: 0.5, end=101.0, most=most)
    assert progress.steps == 100 and not events


def test_lengthening_stops_at_what_is_useful_and_before_it_would_warm_up_again(clock: list[float]) -> None:
    progress, _ = deadline_course(clock, lambda _: 0.5, end=101.0, most=130)
    assert progress.steps == 130
    clock[0] = 0.0
    progress, events = deadline_course(clock, lambda _: 0.01, end=101.0, most=10**9)
    changes = [(int(event.split(":")[0][5:]), int(event.split()[-2])) for event in events]
    assert all(0.15 * steps <= step for step, steps in changes) and progress.steps == changes[-1][1] > 9000


def test_the_clock_is_looked_at_more_often_near_the_end(clock: list[float]) -> None:
    """The machine slows down right after the last look but one: 9 s of 100 would be missing."""
    progress, _ = deadline_course(clock, lambda step: 1.0 if step < 80 else 1.5, end=100.0, most=1000, every=20)
    assert 90 < progress.steps < 97 and clock[0] < 103


def test_a_moment_too_late_is_not_worth_a_checkpoint(clock: list[float]) -> None:
    """Of the last seconds, a few per cent are less than writing one takes."""
    progress, events = deadline_course(clock, lambda _: 0.0103, end=1.0)
    assert progress.steps == 100 and not events


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 10_000), st.one_of(st.none(), st.integers(1, 10_000)))
def test_what_is_left_at_most_doubles(step: int, steps: int, affordable: int, most: int | None) -> None:
    """So that a rate that falls already rises but little, and the warm-up never comes back."""
    longer = Deadline(0.0, every=1, most=most)._longer(step, steps, affordable)
    assert longer == steps or steps < longer <= min(affordable, most or 0, 2 * steps - step, step / 0.15)


def test_a_schedule_shortened_too_early_recovers(clock: list[float]) -> None:
    """A machine that is busy for the first steps only."""
    progress, events = deadline_course(clock, lambda step: 2.0 if step < 12 else 0.5, end=120.0, most=1000, every=5)
    assert "shortened" in events[0] and "lengthened" in events[1] and progress.steps > 75 and clock[0] <= 120.0


def test_a_lengthened_schedule_can_still_be_shortened(clock: list[float]) -> None:
    _, events = deadline_course(clock, lambda step: 0.5 if step < 50 else 2.0, end=101.0, most=1000)
    changes = [event.split()[-6] for event in events]
    assert changes[:3] == ["lengthened", "lengthened", "shortened"] and clock[0] < 0.8 * (25 + 2 * 152)


def test_beside_others_steps_are_counted_anew_and_what_follows_is_given_more_time(clock: list[float]) -> None:
    """Somebody else computes from step 20 on: with fewer threads steps take 1.5 s, and what follows 15 s for 10."""
    progress, events, looks = Progress(steps=100), [], []

    def fit_threads() -> float:
        looks.append(progress.step)
        return 0.5 if progress.step >= 26 else 1.0

    hook = Deadline(140.0, events.append, every=20, seconds_a_step=1.0, closing=10.0, fit_threads=fit_threads)
    while progress.step < progress.steps:
        clock[0] += 1.0 if progress.step < 20 else 6.0 if progress.step < 26 else 1.5
        progress.step += 1
        hook(progress)
    assert looks == [26, 60, 65, 70, 75], "36 s after the first validation; 20 steps after the next; then closer"
    assert len(events) == 1 and "shortened" in events[0] and 130.0 <= clock[0] <= 136.5


def test_a_slow_moment_makes_it_look_for_others_and_change_nothing_yet(clock: list[float]) -> None:
    progress, events, looks = Progress(steps=100), [], []

    def fit_threads() -> float:
        looks.append(progress.step)
        return 1.0

    hook = Deadline(110.0, events.append, every=20, seconds_a_step=1.0, fit_threads=fit_threads)
    while progress.step < progress.steps:
        clock[0] += 8.0 if 24 <= progress.step < 28 else 1.0
        progress.step += 1
        hook(progress)
    assert looks[:2] == [28, 40] and len(events) == 1 and events[0].startswith("step 40:")


def test_checkpoints_come_on_the_beat_on_request_and_at_the_end() -> None:
    saved: list[int] = []
    hook = Checkpointing(lambda progress: saved.append(progress.step), every=4)
    for step in range(1, 11):
        hook(Progress(step=step, steps=10, checkpoint=step == 7, stop="enough" if step == 9 else ""))
    assert saved == [4, 7, 8, 9, 10]


def test_an_interruption_is_not_part_of_the_state() -> None:
    best = Best(1.5, 3, 1)
    kept = progress_state(Progress(step=3, steps=9, tokens=5, stop=hooks.INTERRUPTED), best)
    assert Progress(**kept["progress"]).stop == "" and Best(**kept["best"]) == best
    assert progress_state(Progress(stop="validation has not improved"), best)["progress"]["stop"]
