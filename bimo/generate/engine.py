"""The engine: many requests at once on one backend, each as if it were alone.

Requests join and leave between steps. A step computes the next position of every sequence that is being continued, the
tokens guessed for it, and pieces of the prompts of others. Because the backend gives the same bits for a row whatever
is computed beside it, nothing here decides what a request gets, only when.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimo.errors import BimoError, Busy, EngineError, UsageError
from bimo.generate.backend import PAGE, Backend
from bimo.generate.batching import batch_of
from bimo.generate.drafting import Drafter
from bimo.generate.job import Job
from bimo.generate.request import MOST_ALTERNATIVES, End, Event, Reason, Request
from bimo.generate.schedule import Schedule, Work


@dataclass(frozen=True)
class Stats:
    """The engine in numbers, for a monitor; those from ``prompt_tokens`` on count from its start.

    Attributes:
        running: requests that hold pages.
        waiting: requests that do not yet.
        pages: how many there are.
        pages_used: held by running requests.
        pages_cached: held by none, but kept for a request that begins alike.
        pages_free: neither.
        prompt_tokens: of all requests whose prompt was computed.
        cached_tokens: of these found computed.
        new_tokens: drawn.
        drafted: tokens guessed ahead.
        accepted: guesses that came true.
        preempted: how often a request gave its pages back, to start again later.
        steps: of the backend.
        seconds: that steps took, of the wall clock.
        finished: requests by reason.
    """

    running: int
    waiting: int
    pages: int
    pages_used: int
    pages_cached: int
    pages_free: int
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    drafted: int
    accepted: int
    preempted: int
    steps: int
    seconds: float
    finished: dict[Reason, int]


class Handle:
    """A request in the engine. Iterate over it from any thread for its events, :class:`End` last.

    Attributes:
        request: what was submitted.
    """

    def __init__(self, engine: Engine, job: Job, on_event: Callable[[Event], None] | None) -> None:
        self.request = job.request
        self._engine, self._job = engine, job
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._tell = self._events.put if on_event is None else on_event

    def __iter__(self) -> Iterator[Event]:
        """The events as they come; waits for them. Once only, and not for a handle with a callback."""
        while True:
            event = self._events.get()
            yield event
            if isinstance(event, End):
                return

    def cancel(self) -> None:
        """Give its pages back at once; while a step runs, at its end. The last event is then ``End("cancelled")``.

        From any thread, also when the request has ended already.
        """
        self._engine._cancel(self._job)

    def result(self) -> list[Event]:
        """Wait for all events.

        Raises:
            BimoError: the request failed.
        """
        events = list(self)
        end = events[-1]
        assert isinstance(end, End)
        if end.error is not None:
            raise end.error
        return events


class Engine:
    """Computes requests together, as many as there is memory for; the others wait.

    Requests start in the order of their priority, then of their arrival. Where pages run out, the last in that order
    gives its own back and starts again later, with the same result.

        engine = Engine(backend)
        threading.Thread(target=engine.run).start()
        for event in engine.submit(Request(prompt=[1, 2, 3])):
            ...
        engine.close(drain=True)

    Args:
        backend: what computes; its pages are the engine's alone.
        max_running: requests computed together at most.
        max_waiting: requests that may wait beyond those; one more is refused with :class:`bimo.errors.Busy`.
        chunk: positions computed in one step, so that a long prompt does not hold the others up; one of each running
            request is computed nevertheless.
        drafter: what guesses tokens ahead (speculative decoding); never changes a result.

    Attributes:
        longest: positions of the longest request: the context, or as many as all pages hold.

    Raises:
        UsageError: a limit is below 1, or the drafter has another vocabulary.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_running: int = 32,
        max_waiting: int = 256,
        chunk: int = 256,
        drafter: Drafter | None = None,
    ) -> None:
        for name, value in (("max_running", max_running), ("chunk", chunk), ("the backend's pages", backend.pages)):
            if value < 1:
                raise UsageError(f"{name} is wrong.", expected="at least 1", got=str(value))
        if drafter is not None and drafter.vocab_size not in (None, backend.vocab_size):
            expected, got = f"the model's {backend.vocab_size} tokens", f"{drafter.vocab_size}"
            raise UsageError("The smaller model has another vocabulary.", expected=expected, got=got)
        self.longest = min(backend.context, backend.pages * PAGE)
        self._backend, self._max_running, self._max_waiting = backend, max_running, max_waiting
        self._schedule = Schedule(backend.pages, max_running=max_running, chunk=chunk, drafter=drafter)
        # Not held while a step computes: until then what runs is the stepping thread's, what waits is everybody's.
        self._lock = threading.Condition(threading.RLock())
        self._handles: dict[int, Handle] = {}
        self._cancelled: set[int] = set()
        self._arrivals = 0
        self._stepping = self._closed = False
        self._thread: int | None = None
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._finished: Counter[Reason] = Counter()

    def submit(self, request: Request, on_event: Callable[[Event], None] | None = None) -> Handle:
        """Queue a request, from any thread.

        Args:
            on_event: called with each event, instead of keeping it for an iteration, on the engine's thread, which it
                must not hold up, or on the one that cancels. If it raises RuntimeError, as a closed event loop does,
                the request is cancelled.

        Raises:
            UsageError: the request is wrong, or can never fit; the message names the numbers.
            Busy: too many requests wait.
            EngineError: the engine is closed.
        """
        self._check(request)
        length, new = len(request.prompt), request.sampling.max_new_tokens if request.sampling else 0
        matcher = request.constraint.start() if request.constraint is not None else None
        with self._lock:
            if self._closed:
                raise EngineError("The engine is closed and takes no more requests.")
            waiting, running = len(self._schedule.waiting), len(self._schedule.running)
            if waiting >= self._max_waiting + max(0, self._max_running - running):
                expected, got = f"at most {self._max_waiting} waiting requests", f"{waiting} already"
                raise Busy("The engine is busy.", expected=expected, got=got, fix="Send the request again later.")
            job = Job(request, self._arrivals, min(length + new, self.longest), matcher)
            handle = self._handles[job.number] = Handle(self, job, on_event)
            self._arrivals += 1
            self._schedule.add(job)
            self._lock.notify_all()
        return handle

    def _check(self, request: Request) -> None:
        length, sampling, size = len(request.prompt), request.sampling, self._backend.vocab_size
        if length < 1:
            raise UsageError("The prompt has no tokens.", fix="Begin with at least the token that starts a document.")
        if length > self.longest - (sampling is not None):
            got = f"{length} tokens"
            expected = f"at most {self.longest - (sampling is not None)} tokens"
            why = "the model's context" if self.longest == self._backend.context else "the memory for keys and values"
            raise UsageError("The prompt is too long.", expected=f"{expected}, which {why} allows", got=got)
        wrong = next((id for id in request.prompt if not 0 <= id < size), None)
        if wrong is not None:
            raise UsageError("The prompt is wrong.", expected=f"ids from 0 to {size - 1}", got=str(wrong))
        biased = [id for id, _ in sampling.logit_bias if id >= size] if sampling is not None else []
        if biased:
            raise UsageError("logit_bias is wrong.", expected=f"ids from 0 to {size - 1}", got=str(biased[0]))
        for name in ("logprobs", "prompt_logprobs"):
            asked = getattr(request, name)
            if asked is not None and not 0 <= asked <= min(MOST_ALTERNATIVES, size):
                raise UsageError(f"{name} is wrong.", expected=f"0 to {MOST_ALTERNATIVES}", got=str(asked))
        if request.embed is not None and (sampling is not None or request.prompt_logprobs is not None):
            raise UsageError("A request for an embedding asks for nothing else.", fix="Send two requests.")

    def _cancel(self, job: Job) -> None:
        with self._lock:
            handle = self._handles.get(job.number)
            if handle is None:
                return
            if self._stepping and job not in self._schedule.waiting:
                self._cancelled.add(job.number)
                return
            told = self._conclude(job, End("cancelled"))
        self._tell([told])

    def step(self) -> bool:
        """Compute once; False if there was nothing to do. One thread at a time."""
        with self._lock:
            assert not self._stepping, "two threads step one engine"
            self._schedule.admit()
            self._stepping = True
        busy, started = bool(self._schedule.running), time.perf_counter()
        for embed in (False, True):
            if plan := self._schedule.plan(embed=embed):
                self._tell([self._conclude(job, event) for job, event in self._compute(plan, embed)])
        with self._lock:
            self._stepping = False
            self._seconds += time.perf_counter() - started if busy else 0
            self._schedule.requeue()
            cancelled = [self._handles[number] for number in sorted(self._cancelled)]
            self._lock.notify_all()
        for handle in cancelled:
            handle.cancel()
        return busy

    def run(self) -> None:
        """Step until closed, waiting where there is nothing to do; for a thread of its own.

        If it ends by an exception, which is a defect of the backend or of the engine, all requests end with an error.
        """
        with self._lock:
            self._thread = threading.get_ident()
        try:
            while True:
                with self._lock:
                    self._lock.wait_for(lambda: self._closed or self._handles)
                    if not self._handles:
                        return
                self.step()
        finally:
            with self._lock:
                self._thread, self._closed, self._stepping = None, True, False
                error = EngineError("The engine has stopped by an internal error.", fix="Start it again.")
                left = [self._conclude(handle._job, End("error", error)) for handle in [*self._handles.values()]]
                self._lock.notify_all()
            self._tell(left)

    def close(self, *, drain: bool = False, timeout: float | None = None) -> None:
        """Take no more requests, end those there are as cancelled, and let :meth:`run` return.

        Args:
            drain: finish them first.
            timeout: seconds after which those left are cancelled nevertheless.
        """
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            if drain and self._thread is not None:
                self._lock.wait_for(lambda: not self._handles, timeout)
        if drain and self._thread is None:
            while self.step():
                pass
        for handle in list(self._handles.values()):
            handle.cancel()

    def stats(self) -> Stats:
        """The numbers of now."""
        pages = self._schedule.pages
        with self._lock:
            return Stats(
                running=len(self._schedule.running),
                waiting=len(self._schedule.waiting),
                pages=pages.count,
                pages_used=pages.count - pages.available,
                pages_cached=pages.cached,
                pages_free=pages.available - pages.cached,
                prompt_tokens=self._counts["prompt_tokens"],
                cached_tokens=self._counts["cached_tokens"],
                new_tokens=self._counts["new_tokens"],
                drafted=self._counts["drafted"],
                accepted=self._counts["accepted"],
                preempted=self._schedule.preempted,
                steps=self._counts["steps"],
                seconds=self._seconds,
                finished=dict(self._finished),
            )

    def _compute(self, plan: Sequence[Work], embed: bool) -> list[tuple[Job, Event]]:
        """Compute a step; returns what there is to tell, an :class:`End` for each job that is over."""
        pieces = [work.piece for work in plan]
        batch = batch_of(pieces)
        ends = np.cumsum([len(piece.wanted) for piece in pieces])
        self._counts["steps"] += 1
        try:
            results = self._backend.hidden(batch) if embed else self._backend.logits(batch)
        except BimoError as error:
            return [(work.job, End("error", error)) for work in plan]
        events: list[tuple[Job, Event]] = []
        for work, piece, rows in zip(plan, pieces, np.split(results, ends[:-1]), strict=True):
            work.job.computed = min(work.end, len(work.job.tokens))
            try:
                for event in self._take(work, piece.wanted.start, rows, embed):
                    events.append((work.job, event))
            except BimoError as error:
                events.append((work.job, End("error", error)))
            self._schedule.name_pages(work.job)
        return events

    def _take(self, work: Work, first: int, results: NDArray[np.float32], embed: bool) -> Iterator[Event]:
        job = work.job
        if embed:
            if (prompt := job.take_states(results)) is not None:
                yield from (self._started(job, prompt), End("done"))
            return
        if not job.started:
            results = results[job.take_scores(results, first) :]
        if job.computed < len(job.tokens):
            return
        if not job.started:
            yield self._started(job, job.prompt_event())
        if job.request.sampling is None:
            yield End("done")
            return
        self._counts["drafted"] += len(work.guesses)
        for logits, guess in zip(results, [*work.guesses, None], strict=True):
            token = job.draw(logits)
            self._counts["new_tokens"] += 1
            yield token
            if token.finish_reason is not None:
                yield End(token.finish_reason)
            if token.id != guess or token.finish_reason is not None:
                return
            self._counts["accepted"] += 1
            job.computed += 1

    def _started(self, job: Job, event: Event) -> Event:
        self._counts["prompt_tokens"] += len(job.request.prompt)
        self._counts["cached_tokens"] += job.cached or 0
        return event

    def _conclude(self, job: Job, event: Event) -> tuple[Handle, Event]:
        """Who is told of an event; if it is the end, the job leaves the engine and its pages are free from now on."""
        handle = self._handles[job.number]
        if isinstance(event, End):
            with self._lock:
                self._schedule.remove(job)
                del self._handles[job.number]
                self._cancelled.discard(job.number)
                self._finished[event.reason] += 1
                self._lock.notify_all()
        return handle, event

    def _tell(self, events: Sequence[tuple[Handle, Event]]) -> None:
        for handle, event in events:
            try:
                handle._tell(event)
            except RuntimeError:
                handle.cancel()
