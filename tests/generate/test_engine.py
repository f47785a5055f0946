"""The scheduler on a fake backend that notices every wrong page, against a loop that computes one request alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bimo.errors import BimoError, Busy, EngineError, ModelError, UsageError
from bimo.generate.backend import PAGE, Batch
from bimo.generate.drafting import PromptLookup
from bimo.generate.engine import Engine, Handle
from bimo.generate.job import score
from bimo.generate.request import End, Event, Prompt, Request, Token
from bimo.generate.sampling import History, Sampling, Uniforms, next_token
from tests.generate.fake import FakeBackend, hashed_logits

V = 53


def alone(request: Request, *, longest: int = 300, forgetful: int = 0) -> list[Event]:
    """What a request should get: no pages, no batch, no engine. Of the first event, ``cached`` is left 0."""

    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        return hashed_logits(list(tokens)[-forgetful:], V)

    prompt, sampling = list(request.prompt), request.sampling
    scores = None
    if (asked := request.prompt_logprobs) is not None:
        scores = tuple(score(logits(prompt[:i]), prompt[i], asked) for i in range(1, len(prompt)))
    if sampling is None:
        return [Prompt(0, scores), End("done")]
    events: list[Event] = [Prompt(0, scores)]
    history, uniforms, tokens = History(prompt), Uniforms(request.seed), list(prompt)
    while True:
        row = logits(tokens)
        id, logprob = next_token(row, sampling, history=history, uniform=uniforms[len(tokens) - len(prompt)])
        tokens.append(id)
        history.add(id)
        full = len(tokens) - len(prompt) == sampling.max_new_tokens or len(tokens) == longest
        reason: Any = "stop" if id in request.eos_ids else "length" if full else None
        known = request.logprobs is not None
        events.append(
            Token(id, score(row, id, request.logprobs or 0) if known else None, logprob if known else None, reason)
        )
        if reason is not None:
            return [*events, End(reason)]


def events_of(handle: Handle) -> list[Event]:
    return [Prompt(0, event.scores) if isinstance(event, Prompt) else event for event in handle]


def finish(engine: Engine) -> None:
    steps = 0
    while engine.step():
        steps += 1
        assert steps < 10_000, "the engine goes on for ever"


def pages_in_use(engine: Engine) -> int:
    return engine.stats().pages_used


samplings = st.builds(
    Sampling,
    max_new_tokens=st.integers(1, 80),
    temperature=st.sampled_from([0, 0.7, 1.5]),
    top_k=st.sampled_from([None, 5]),
    top_p=st.sampled_from([None, 0.9]),
    min_p=st.sampled_from([None, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, -0.2]),
    logit_bias=st.sampled_from([(), ((3, 2.0), (V - 1, -5.0))]),
)
# Beginnings that are often equal, so that requests share pages; lengths around the ends of pages.
prompts = st.builds(
    lambda start, length, own: [(start * 7 + i * i) % V for i in range(length)] + own,
    st.integers(0, 1),
    st.sampled_from([0, 1, 31, 32, 33, 63, 64, 65, 100]),
    st.lists(st.integers(0, V - 1), min_size=1, max_size=40),
)
requests = st.builds(
    Request,
    prompt=prompts,
    sampling=st.one_of(st.none(), samplings),
    seed=st.integers(0, 99),
    eos_ids=st.sampled_from([frozenset(), frozenset({4, 40})]),
    logprobs=st.sampled_from([None, 0, 3]),
    prompt_logprobs=st.sampled_from([None, None, 0, 2]),
    priority=st.integers(0, 1),
    salt=st.sampled_from([b"", b"other"]),
)


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(requests, min_size=1, max_size=12),
    joins=st.lists(st.integers(0, 6), min_size=12, max_size=12),
    cancels=st.sets(st.integers(0, 11), max_size=4),
    chunk=st.sampled_from([1, 5, 32, 40, 256]),
    max_running=st.sampled_from([1, 2, 5, 32]),
    pages=st.sampled_from([10, 13, 40]),  # 10 pages are what the longest request needs: others are set back
    drafter=st.booleans(),
    forgetful=st.sampled_from([0, 2]),
)
def test_a_request_gets_what_it_would_get_alone(
    wanted: list[Request],
    joins: list[int],
    cancels: set[int],
    chunk: int,
    max_running: int,
    pages: int,
    drafter: bool,
    forgetful: int,
) -> None:
    backend = FakeBackend(pages=pages, forgetful=forgetful)
    engine = Engine(
        backend, max_running=max_running, chunk=chunk, drafter=PromptLookup(tokens=3, match=2) if drafter else None
    )
    handles = []
    for request, steps in zip(wanted, joins, strict=False):
        handles.append(engine.submit(request))
        for _ in range(steps):
            engine.step()
        if len(handles) - 1 in cancels:
            handles[-1].cancel()
    finish(engine)
    for index, (request, handle) in enumerate(zip(wanted, handles, strict=True)):
        events, expected = events_of(handle), alone(request, forgetful=forgetful)
        if events[-1] == End("cancelled"):
            assert index in cancels and events[:-1] == expected[: len(events) - 1]
        else:
            assert events == expected
    assert pages_in_use(engine) == 0
    assert engine.stats().running == engine.stats().waiting == 0


def test_the_limits_and_the_sharing_of_the_test_above_come_about() -> None:
    """What the random neighbours are for does happen: set back, found computed, guessed ahead."""
    few = Engine(FakeBackend(pages=10), chunk=40)
    for seed in range(6):
        few.submit(Request([1, 2, 3], Sampling(max_new_tokens=150), seed=seed))
    finish(few)
    assert few.stats().preempted > 0
    engine = Engine(FakeBackend(forgetful=2), drafter=PromptLookup(tokens=4, match=2))
    for seed in range(2):
        engine.submit(Request(list(range(50)), Sampling(max_new_tokens=150, temperature=0), seed=seed))
        finish(engine)
    stats = engine.stats()
    assert stats.cached_tokens == PAGE and stats.prompt_tokens == 100
    assert stats.drafted > stats.accepted > 0 and stats.new_tokens == 300 > stats.steps


def test_guessing_saves_passes() -> None:
    request = Request([5, 6, 7, 5, 6, 7, 5, 6], Sampling(max_new_tokens=200, temperature=0))
    passes = []
    for drafter in (None, PromptLookup(tokens=6, match=2)):
        backend = FakeBackend(forgetful=1)  # greedy: runs into a circle
        engine = Engine(backend, drafter=drafter)
        handle = engine.submit(request)
        finish(engine)
        assert events_of(handle) == alone(request, forgetful=1)
        passes.append(backend.batches)
    assert passes[0] == 200 and passes[1] < 60


def test_many_of_one_prompt_compute_it_once() -> None:
    prompt = list(range(20)) * 5
    backend = FakeBackend()
    engine = Engine(backend, chunk=50)
    handles = [engine.submit(Request(prompt, Sampling(max_new_tokens=1), seed=seed)) for seed in range(8)]
    finish(engine)
    assert [events_of(handle) for handle in handles] == [alone(handle.request) for handle in handles]
    assert backend.computed == 100 + 7 * (100 - 3 * PAGE)
    assert engine.stats().cached_tokens == 7 * 3 * PAGE


def test_another_salt_shares_nothing() -> None:
    engine = Engine(FakeBackend())
    for salt in (b"a", b"b", b"a"):
        handle = engine.submit(Request([3] * 70, Sampling(max_new_tokens=1), salt=salt))
        finish(engine)
        first = next(iter(handle))
        assert isinstance(first, Prompt) and first.cached == (2 * PAGE if salt == b"a" and handle._job.number else 0)


def test_a_conversation_finds_its_own_answer() -> None:
    engine = Engine(FakeBackend())
    first = engine.submit(Request([9] * 20, Sampling(max_new_tokens=60)))
    finish(engine)
    tokens = [event.id for event in first if isinstance(event, Token)]
    second = engine.submit(Request([9] * 20 + tokens + [1, 2], Sampling(max_new_tokens=3)))
    finish(engine)
    prompt = next(iter(second))
    assert isinstance(prompt, Prompt) and prompt.cached == 79 // PAGE * PAGE


def test_what_was_used_longest_ago_goes_first() -> None:
    engine = Engine(FakeBackend(pages=10))

    def cached(start: int, length: int = 2 * PAGE + 1) -> int:
        handle = engine.submit(Request([start] * length, sampling=None))
        finish(engine)
        prompt = next(iter(handle))
        assert isinstance(prompt, Prompt)
        return prompt.cached

    assert [cached(start) for start in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert cached(1) == 2 * PAGE  # used again: now 2 is the oldest
    assert cached(5) == 0  # 8 pages are named; this takes two of the remaining ...
    assert cached(6) == 0  # ... and this the two of 2
    assert cached(1) == 2 * PAGE
    assert cached(2) == 0


def test_priority_and_order() -> None:
    engine = Engine(FakeBackend(), max_running=1)
    ended: list[int] = []

    def note(number: int) -> Any:
        return lambda event: ended.append(number) if isinstance(event, End) else None

    for number, priority in enumerate([0, 0, 1, 0, 1]):
        engine.submit(Request([1], Sampling(max_new_tokens=2), priority=priority), note(number))
    finish(engine)
    assert ended == [2, 4, 0, 1, 3]


def test_a_long_prompt_does_not_hold_others_up() -> None:
    engine = Engine(FakeBackend(), chunk=20)
    short = engine.submit(Request([1], Sampling(max_new_tokens=10)))
    engine.step()
    engine.submit(Request([2] * 200, Sampling(max_new_tokens=1)))
    before = engine.stats().new_tokens
    for _ in range(5):
        engine.step()
    assert engine.stats().new_tokens == before + 5
    short.cancel()


def test_embeddings_are_means_or_the_last_state() -> None:
    prompt = [*range(40), 7]
    states = np.stack([hashed_logits(prompt[: i + 1], 5) for i in range(len(prompt))])
    for chunk in (3, 256):
        engine = Engine(FakeBackend(), chunk=chunk)
        handles = [engine.submit(Request(prompt, sampling=None, embed=kind)) for kind in ("mean", "last")]
        other = engine.submit(Request(prompt, Sampling(max_new_tokens=9)))
        finish(engine)
        mean = states.mean(0, dtype=np.float64).astype(np.float32)
        for handle, expected in zip(handles, (mean, states[-1]), strict=True):
            (first, end) = list(handle)
            assert isinstance(first, Prompt) and first.embedding is not None and end == End("done")
            np.testing.assert_array_equal(first.embedding, expected)
        assert events_of(other) == alone(other.request)


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


class Fixed:
    """Allows the tokens of one sequence only; with ``ahead``, says so in advance. After the last, nothing."""

    def __init__(self, tokens: list[int], *, ahead: int = 0, fails_at: int | None = None) -> None:
        self.tokens, self.ahead, self.fails_at = tokens, ahead, fails_at
        self.finished, self.place = False, 0

    def start(self) -> Fixed:
        return Fixed(self.tokens, ahead=self.ahead, fails_at=self.fails_at)

    def allowed(self) -> NDArray[np.bool_]:
        if self.place == self.fails_at:
            raise BimoError("The constraint is too slow.")
        return np.arange(30) == self.tokens[self.place]

    def advance(self, token: int) -> None:
        assert token == self.tokens[self.place]
        self.place += 1
        self.finished = self.place == len(self.tokens)

    def forced(self) -> list[int]:
        return self.tokens[self.place : self.place + self.ahead]


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_constraint_decides_and_what_it_forces_saves_passes(ahead: int) -> None:
    backend = FakeBackend()
    engine = Engine(backend)
    tokens = [7, 3, 3, 29, 0, 11, 7, 3]
    handle = engine.submit(Request([1, 2], Sampling(max_new_tokens=50), constraint=Fixed(tokens, ahead=ahead)))
    neighbour = engine.submit(Request([1, 2], Sampling(max_new_tokens=50)))
    while not (stats := engine.stats()).finished:
        engine.step()
    assert [event.id for event in handle if isinstance(event, Token)] == tokens
    assert stats.steps == (8 if ahead == 0 else 3)
    finish(engine)
    assert events_of(neighbour) == alone(neighbour.request)


def test_a_constraint_that_fails_ends_its_request_alone() -> None:
    seen = []
    for ahead in (0, 3):
        engine = Engine(FakeBackend())
        rule = Fixed([7, 3, 3, 29, 5], fails_at=3, ahead=ahead)
        handle = engine.submit(Request([1, 2], Sampling(max_new_tokens=50), constraint=rule))
        other = engine.submit(Request([1], Sampling(max_new_tokens=9)))
        finish(engine)
        seen.append([str(event) for event in handle])
        assert "too slow" in seen[-1][-1] and len(seen[-1]) == 5
        assert events_of(other) == alone(other.request)
    assert seen[0] == seen[1]


def test_a_constraint_without_a_token_is_an_error() -> None:
    engine = Engine(FakeBackend())
    handle = engine.submit(Request([1], constraint=Fixed([40])))
    finish(engine)
    with pytest.raises(EngineError, match="allows no token"):
        handle.result()


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
