"""How many requests are computed and how many may wait; the others are told to come back later."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

from bimo.serve.errors import ApiError
from bimo.serve.limits import Limits

RETRY_SECONDS = 5


class Admission:
    """Places for requests.

    Attributes:
        active: requests that have a place.
        waiting: requests that wait for one.
        draining: the server is ending; nothing new is let in.
    """

    def __init__(self, limits: Limits) -> None:
        self.active = self.waiting = 0
        self.draining = False
        self._limits = limits
        self._places = asyncio.Semaphore(limits.running)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place.

        Raises:
            ApiError: 503; the queue is full, the wait was too long, or the server is ending.
        """
        self.refuse_if_draining()
        if self._places.locked() and self.waiting >= self._limits.queue:
            raise overloaded("The server has as many requests waiting as it may.")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise overloaded("The request waited too long for its turn.") from None
        finally:
            self.waiting -= 1
        self.active += 1
        try:
            self.refuse_if_draining()
            yield
        finally:
            self.active -= 1
            self._places.release()

    def refuse_if_draining(self) -> None:
        """Let nothing new in when the server is ending.

        Raises:
            ApiError: 503.
        """
        if self.draining:
            raise overloaded("The server is shutting down.", seconds=self._limits.drain_seconds, code="shutting_down")


def overloaded(why: str, *, seconds: float = RETRY_SECONDS, code: str = "overloaded") -> ApiError:
    """An answer that asks the client to try again later."""
    headers = {"retry-after": str(max(1, math.ceil(seconds)))}
    return ApiError(503, f"{why} Please try again later.", code=code, headers=headers)
