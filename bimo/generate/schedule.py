"""Who is computed next: requests in order, as many as there are pages for, and which of their positions in one step."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from bimo.generate.backend import PAGE
from bimo.generate.batching import Piece
from bimo.generate.drafting import Drafter
from bimo.generate.job import Job
from bimo.generate.pages import Pages


@dataclass(frozen=True)
class Work:
    """What a step computes of a job: the positions from ``start`` to ``end``, the last of tokens only guessed."""

    job: Job
    start: int
    end: int
    guesses: list[int]

    @property
    def piece(self) -> Piece:
        """Its part of a batch."""
        tokens = [*self.job.tokens[self.start : self.end], *self.guesses]
        return Piece(tokens, self.start, self.job.pages, self.job.wanted(self.start, self.end))


class Schedule:
    """The jobs of an engine in order of priority, then of arrival; where pages run out, the last one starts again.

    The first job always goes on, so every job ends. Not safe for several threads.

    Attributes:
        waiting: jobs that hold no pages, in order.
        running: jobs that do, in order.
        set_back: those whose pages others took in the last plan; see :meth:`requeue`.
        preempted: how many those were so far.
    """

    def __init__(self, pages: int, *, max_running: int, chunk: int, drafter: Drafter | None) -> None:
        self.pages = Pages(pages)
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.set_back: list[Job] = []
        self.preempted = 0
        self._max_running, self._chunk, self._drafter = max_running, chunk, drafter

    def add(self, job: Job) -> None:
        """Let a job wait for its turn."""
        bisect.insort(self.waiting, job, key=_order)

    def remove(self, job: Job) -> None:
        """Take a job out; its pages are free from now on."""
        self._give_back(job)
        for jobs in (self.running, self.waiting, self.set_back):
            if job in jobs:
                jobs.remove(job)

    def requeue(self) -> None:
        """Let the jobs that were set back wait again."""
        for job in self.set_back:
            self.add(job)
        self.set_back.clear()

    def admit(self) -> None:
        """Start the waiting jobs that there is room for; none overtakes one that only lacks pages."""
        for job in list(self.waiting):
            if len(self.running) >= self._max_running:
                return
            keys = job.keys()[: job.reusable()]
            found = self.pages.find(keys)
            if len(found) < len(keys) and self._is_being_computed(keys[len(found)]):
                self.pages.release(found)  # soon it can be found
                continue
            needed = pages_for(len(job.tokens)) - len(found)
            promised = sum(1 + pages_for(len(other.tokens)) - len(other.pages) for other in self.running)
            if self.running and needed + promised > self.pages.available:
                self.pages.release(found)
                return
            job.start_from(found)
            self.waiting.remove(job)
            bisect.insort(self.running, job, key=_order)

    def _is_being_computed(self, key: bytes) -> bool:
        return any(key in job.keys()[job.named :] for job in self.running)

    def plan(self, *, embed: bool) -> list[Work]:
        """What to compute next of the requests for embeddings, or of all others, with pages for it."""
        jobs = [job for job in self.running if (job.request.embed is not None) == embed]
        decoding = [job for job in jobs if job.decoding]
        drafted = self._drafter.propose(decoding) if self._drafter is not None else [[]] * len(decoding)
        guesses = {job.number: job.guesses(tokens) for job, tokens in zip(decoding, drafted, strict=True)}
        room = self._chunk - len(decoding)  # beside one position of each sequence that is being continued
        plan = []
        for job in jobs:
            start = job.computed
            if job.decoding:
                free = (len(job.pages) + self.pages.available) * PAGE - start - 1  # no job is set back for a guess
                extra = guesses[job.number][: max(0, min(room, free))]
                count, cost = 1 + len(extra), len(extra)
            else:
                extra = []
                count = cost = max(0, min(len(job.tokens) - start, room))
            if job in self.set_back or count == 0 or not self._make_room(job, start + count):
                continue
            room -= cost
            plan.append(Work(job, start, start + count, extra))
        return plan

    def _make_room(self, job: Job, length: int) -> bool:
        """Take pages for ``length`` positions, from the last jobs if none is left; False if ``job`` is the last."""
        while len(job.pages) < pages_for(length):
            while not self.pages.available:
                last = self.running.pop()
                self._give_back(last)
                self.set_back.append(last)
                self.preempted += 1
                if last is job:
                    return False
            job.pages.append(self.pages.take())
        return True

    def _give_back(self, job: Job) -> None:
        self.pages.release(job.pages)
        job.start_from([])
        if self._drafter is not None:
            self._drafter.forget(job.number)

    def name_pages(self, job: Job) -> None:
        """Let others find the pages that a job has filled."""
        for key in job.keys()[job.named : job.computed // PAGE]:
            self.pages.name(job.pages[job.named], key)
            job.named += 1


def _order(job: Job) -> tuple[int, int]:
    return -job.request.priority, job.number


def pages_for(positions: int) -> int:
    """How many pages hold so many positions."""
    return -(-positions // PAGE)
