"""The engine: many requests at once on one backend, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bimo.generate.backend import Backend
from bimo.generate.request import Event, Request


@dataclass(frozen=True)
class Stats:
    """The engine in numbers, for a monitor; the last ones count from its start.

    Attributes:
        running: requests that hold pages.
        waiting: requests that do not yet.
        pages: how many there are.
        pages_used: held by running requests.
        pages_cached: held by none, but kept for a request that begins alike.
        prompt_tokens: of all requests started.
        cached_tokens: of these found computed.
        new_tokens: drawn.
        drafted: tokens guessed ahead.
        accepted: guesses that came true.
        preempted: how often a request gave its pages back to start again later.
        steps: of the backend.
        finished: requests by reason.
    """

    running: int
    waiting: int
    pages: int
    pages_used: int
    pages_cached: int
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    drafted: int
    accepted: int
    preempted: int
    steps: int
    finished: dict[str, int]


class Handle:
    """A request in the engine. Iterate over it from any thread for its events, :class:`End` last."""

    request: Request

    def __iter__(self) -> Iterator[Event]:
        """The events as they come; waits for them. Not for a handle with a callback."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Give its pages back at once; while a step runs, at its end. The event is ``End("cancelled")``.

        From any thread, also when the request has ended already.
        """
        raise NotImplementedError

    def result(self) -> list[Event]:
        """Wait for all events.

        Raises:
            BimoError: the request failed.
        """
        raise NotImplementedError


class Engine:
    """Computes requests together, as many as there is memory for; the others wait.

    Args:
        backend: what computes.
        max_running: requests computed together at most.
        max_waiting: requests that may wait; one more is refused with :class:`bimo.errors.Busy`.
        chunk: positions computed in one step at most, so that a long prompt does not hold the others up.
    """

    longest: int  # positions of the longest request: the context, or what all pages hold

    def __init__(
        self, backend: Backend, *, max_running: int = 32, max_waiting: int = 256, chunk: int = 256
    ) -> None: ...

    def submit(self, request: Request, on_event: Callable[[Event], None] | None = None) -> Handle:
        """Queue a request, from any thread.

        Args:
            on_event: called with each event on the engine's thread, which it must not hold up. If it raises
                RuntimeError, as a closed event loop does, the request is cancelled.

        Raises:
            UsageError: the request is wrong, or can never fit; the message names the numbers.
            Busy: too many requests wait.
            EngineError: the engine is closed.
        """
        raise NotImplementedError

    def score(self, ids: Sequence[int]) -> list[float]: ...

    def step(self) -> bool:
        """Compute once; False if there was nothing to do."""
        raise NotImplementedError

    def run(self) -> None:
        """Step until closed, waiting where there is nothing to do; for a thread of its own."""

    def close(self, *, drain: bool = False, timeout: float | None = None) -> None:
        """Take no more requests; finish those there are, or end them as cancelled, and let :meth:`run` return.

        Args:
            drain: finish them first.
            timeout: seconds after which those left are cancelled nevertheless.
        """

    def stats(self) -> Stats:
        """The numbers of now."""
        raise NotImplementedError
