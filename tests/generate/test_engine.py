"""The scheduler on a fake backend that notices every wrong page, against a loop that computes one request alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bimo.errors import BimoError, EngineError
from bimo.generate.backend import PAGE
from bimo.generate.drafting import DraftModel, PromptLookup
from bimo.generate.engine import Engine
from bimo.generate.job import Job
from bimo.generate.request import End, Prompt, Request, Token
from bimo.generate.sampling import Sampling
from tests.generate.fake import FakeBackend, V, alone, events_of, finish, hashed_logits, pages_in_use

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
    lambda start, length, own: [(start * 7 + i * i) * (start < 2) % V for i in range(length)] + own,
    st.integers(0, 2),
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
    drafter=st.sampled_from(["none", "lookup", "model"]),
    forgetful=st.sampled_from([0, 2]),
)
def test_a_request_gets_what_it_would_get_alone(
    wanted: list[Request],
    joins: list[int],
    cancels: set[int],
    chunk: int,
    max_running: int,
    pages: int,
    drafter: str,
    forgetful: int,
) -> None:
    backend = FakeBackend(pages=pages, forgetful=forgetful)
    draft: Any = {
        "lookup": PromptLookup(tokens=3, match=2),
        "model": DraftModel(FakeBackend(pages=15, forgetful=forgetful), tokens=2, chunk=17),  # the same, with less room
    }.get(drafter)
    engine = Engine(backend, max_running=max_running, chunk=chunk, drafter=draft)
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
    assert not isinstance(draft, DraftModel) or draft._pages.available == 15


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


def test_a_model_that_agrees_saves_passes() -> None:
    backend, draft = FakeBackend(), DraftModel(FakeBackend(), tokens=3)
    engine = Engine(backend, drafter=draft)
    handle = engine.submit(Request([5, 6, 7], Sampling(max_new_tokens=40, top_k=20)))
    finish(engine)
    assert events_of(handle) == alone(handle.request)
    assert backend.batches == 11  # one of the prompt, then four tokens a pass


@pytest.mark.parametrize(("texts", "each"), [(1, 3), (2, 3), (3, 2), (7, 1), (8, 0)])
@pytest.mark.parametrize("kind", ["lookup", "model"])
def test_the_more_texts_the_fewer_guesses_of_each(kind: str, texts: int, each: int) -> None:
    drafter: Any = (
        PromptLookup(tokens=3, match=2, together=7)
        if kind == "lookup"
        else DraftModel(FakeBackend(), tokens=3, together=7)
    )
    jobs = [Job(Request([5, 6, 7, 5, 6, 7, 5, 6]), number, limit=50) for number in range(texts)]
    assert [len(guesses) for guesses in drafter.propose(jobs)] == [each] * texts


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
