"""What ends a request early, refuses it, or closes the engine: never at the cost of another request."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bimo.errors import Busy, EngineError, ModelError, UsageError
from bimo.generate.backend import PAGE, Batch
from bimo.generate.drafting import DraftModel, PromptLookup
from bimo.generate.engine import Engine, Handle
from bimo.generate.request import End, Event, Request
from bimo.generate.sampling import Sampling
from tests.generate.fake import FakeBackend, V, alone, events_of, finish, pages_in_use


def test_cancelling_frees_pages_at_once() -> None:
    engine = Engine(FakeBackend())
    kept = engine.submit(Request([1] * 40, Sampling(max_new_tokens=20)))
    gone = engine.submit(Request([2] * 100, Sampling(max_new_tokens=20)))
    never = engine.submit(Request([3] * 100, Sampling(max_new_tokens=20)))
    never.cancel()
    engine.step()
    used = pages_in_use(engine)
    gone.cancel()
    assert pages_in_use(engine) == used - 4
    gone.cancel()
    finish(engine)
    assert list(never) == [End("cancelled")] and list(gone)[-1] == End("cancelled")
    assert events_of(kept) == alone(kept.request)
    assert engine.stats().finished == {"cancelled": 2, "length": 1}


def test_a_callback_may_cancel_its_own_and_other_requests() -> None:
    engine = Engine(FakeBackend())
    handles: list[Handle] = []
    seen: list[list[Event]] = [[], [], []]

    def callback(number: int) -> Any:
        def on_event(event: Event) -> None:
            seen[number].append(event)
            if number == 1 and len(seen[1]) == 3:
                handles[1].cancel()
                handles[0].cancel()

        return on_event

    for number in range(3):
        handles.append(engine.submit(Request([number], Sampling(max_new_tokens=9)), callback(number)))
    finish(engine)
    assert seen[0][-1] == seen[1][-1] == End("cancelled") and len(seen[1]) == 4
    assert seen[2] == alone(handles[2].request)
    assert pages_in_use(engine) == 0


def test_a_callback_that_raises_ends_its_request_alone() -> None:
    def closed_loop(event: Event) -> None:
        raise RuntimeError("Event loop is closed")

    engine = Engine(FakeBackend())
    engine.submit(Request([1], Sampling(max_new_tokens=9)), closed_loop)
    other = engine.submit(Request([2], Sampling(max_new_tokens=9)))
    finish(engine)
    assert events_of(other) == alone(other.request)
    assert engine.stats().finished == {"cancelled": 1, "length": 1}


class Broken(FakeBackend):
    """Fails on, or gives NaN after, the token 13."""

    def __init__(self, *, raises: type[Exception] | None = None) -> None:
        super().__init__()
        self.raises = raises

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        rows = super().logits(batch)
        if self.raises is not None and (batch.tokens == 13).any():
            raise self.raises("out of memory")
        rows[batch.tokens[batch.wanted] == 13] = np.nan
        return rows


def test_one_request_fails_the_others_go_on() -> None:
    engine = Engine(Broken())
    good = engine.submit(Request([2, 13, 5], Sampling(max_new_tokens=9, logit_bias=((13, -99.0),))))
    bad = engine.submit(Request([2, 5, 13], Sampling(max_new_tokens=9)))
    finish(engine)
    assert events_of(good) == alone(good.request)
    (_, end) = list(bad)
    assert isinstance(end, End) and end.reason == "error" and "not a number" in str(end.error)
    with pytest.raises(ModelError):
        handle = engine.submit(Request([13], Sampling(max_new_tokens=9)))
        finish(engine)
        handle.result()
    assert pages_in_use(engine) == 0


def test_a_failed_pass_ends_those_in_it_and_no_more() -> None:
    engine = Engine(Broken(raises=ModelError))
    bad = engine.submit(Request([13], Sampling(max_new_tokens=9)))
    finish(engine)
    good = engine.submit(Request([2], Sampling(max_new_tokens=9, logit_bias=((13, -99.0),))))
    finish(engine)
    assert list(bad)[-1].reason == "error"  # type: ignore[union-attr]
    assert events_of(good) == alone(good.request)
    assert pages_in_use(engine) == 0


@pytest.mark.parametrize("raises", [None, ModelError])
def test_a_smaller_model_that_fails_costs_its_guesses_alone(raises: type[Exception] | None) -> None:
    draft = DraftModel(Broken(raises=raises), tokens=2)
    engine = Engine(FakeBackend(), drafter=draft)
    handle = engine.submit(Request([2, 5, 13], Sampling(max_new_tokens=40)))
    finish(engine)
    assert events_of(handle) == alone(handle.request)
    assert draft._pages.available == 100


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_the_backend_leaves_nobody_waiting() -> None:
    engine = Engine(Broken(raises=ZeroDivisionError))
    handles = [engine.submit(Request(prompt, Sampling(max_new_tokens=9))) for prompt in ([2], [13])]
    thread = threading.Thread(target=engine.run)
    thread.start()
    for handle in handles:
        end = list(handle)[-1]
        assert isinstance(end, End) and isinstance(end.error, EngineError)
    thread.join(10)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(Request([1]))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([]), "no tokens"),
        (Request([1] * 300), "at most 299 tokens, which the model's context allows; got 300"),
        (Request([1] * 301, sampling=None), "at most 300 tokens"),
        (Request([V]), f"ids from 0 to {V - 1}; got {V}"),
        (Request([-1]), "got -1"),
        (Request([1], logprobs=21), "logprobs is wrong.*0 to 20"),
        (Request([1], prompt_logprobs=-1), "prompt_logprobs is wrong"),
        (Request([1], Sampling(logit_bias=((V, 1.0),))), "logit_bias is wrong"),
        (Request([1], embed="mean"), "asks for nothing else"),
    ],
)
def test_wrong_requests_are_refused(request_: Request, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(FakeBackend()).submit(request_)


def test_a_request_that_never_fits_the_memory_is_refused_with_the_numbers() -> None:
    engine = Engine(FakeBackend(pages=2))
    assert engine.longest == 2 * PAGE
    with pytest.raises(UsageError, match=r"at most 63 tokens, which the memory for keys and values allows; got 64"):
        engine.submit(Request([1] * 64))
    handle = engine.submit(Request([1] * 60, Sampling(max_new_tokens=100)))
    finish(engine)
    assert events_of(handle) == alone(handle.request, longest=64)


def test_the_queue_is_bounded() -> None:
    engine = Engine(FakeBackend(), max_running=2, max_waiting=3)
    handles = [engine.submit(Request([1], Sampling(max_new_tokens=1))) for _ in range(5)]
    with pytest.raises(Busy, match="at most 3 waiting"):
        engine.submit(Request([1]))
    engine.step()
    handles.append(engine.submit(Request([1], Sampling(max_new_tokens=1))))
    finish(engine)
    assert all(list(handle)[-1] == End("length") for handle in handles)


@pytest.mark.parametrize("name", ["max_running", "chunk"])
def test_wrong_limits_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is wrong"):
        Engine(FakeBackend(), **{name: 0})  # type: ignore[arg-type]


def test_threads_submit_and_cancel_while_it_runs() -> None:
    engine = Engine(FakeBackend(pages=24), max_running=6, max_waiting=1000, drafter=PromptLookup(tokens=3, match=2))
    runner = threading.Thread(target=engine.run)
    runner.start()
    failures: list[str] = []

    def client(number: int) -> None:
        random = np.random.default_rng(number)
        for _ in range(25):
            prompt = random.integers(0, V, int(random.integers(1, 70))).tolist()
            request = Request(prompt, Sampling(max_new_tokens=int(random.integers(1, 40))), seed=number, logprobs=1)
            handle = engine.submit(request)
            if random.random() < 0.3:
                handle.cancel()
            events, expected = events_of(handle), alone(request)
            if events[-1] == End("cancelled"):
                events, expected = events[:-1], expected[: len(events) - 1]
            if events != expected:
                failures.append(f"{request}: {events}")

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    assert pages_in_use(engine) == 0 and not failures
    engine.close()
    runner.join(10)
    assert not runner.is_alive()


def test_closing_drains_or_cancels() -> None:
    for drain in (True, False):
        engine = Engine(FakeBackend())
        handle = engine.submit(Request([1], Sampling(max_new_tokens=50)))
        engine.step()
        runner = threading.Thread(target=engine.run)
        runner.start()
        engine.close(drain=drain)
        runner.join(10)
        assert not runner.is_alive() and pages_in_use(engine) == 0
        end = list(handle)[-1]
        assert end == End("length") if drain else end in (End("cancelled"), End("length"))
        with pytest.raises(EngineError, match="closed"):
            engine.submit(Request([1]))


def test_closing_without_a_thread_drains_by_itself() -> None:
    engine = Engine(FakeBackend())
    handle = engine.submit(Request([1], Sampling(max_new_tokens=5)))
    engine.close(drain=True)
    assert list(handle)[-1] == End("length")


@pytest.mark.slow
def test_nothing_leaks_in_a_thousand_requests() -> None:
    engine = Engine(FakeBackend(pages=40), max_running=8, max_waiting=2000, drafter=PromptLookup(match=2))
    random = np.random.default_rng(3)
    handles = []
    for _ in range(1000):
        prompt = random.integers(0, 3, int(random.integers(1, 90))).tolist()
        sampling = None if random.random() < 0.2 else Sampling(max_new_tokens=int(random.integers(1, 30)))
        handles.append(engine.submit(Request(prompt, sampling, seed=int(random.integers(9)), eos_ids=frozenset({1}))))
        engine.step()
        if random.random() < 0.1:
            handles[int(random.integers(len(handles)))].cancel()
    finish(engine)
    stats = engine.stats()
    assert stats.pages_used == 0 and not engine._handles and not engine._cancelled
    assert sum(stats.finished.values()) == 1000
    pages = engine._schedule.pages
    assert sorted([*pages._free, *pages._idle]) == list(range(40))
    drafter = engine._schedule._drafter
    assert isinstance(drafter, PromptLookup) and not drafter._places and not drafter._read
