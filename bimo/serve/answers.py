"""Answers, whole or as a stream of events, to a client that may hang up: its work then stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bimo.errors import BimoError
from bimo.serve.errors import ApiError, from_bimo

T = TypeVar("T")


class Gone(Exception):
    """The client hung up."""


class Stalled(ConnectionError):
    """The client is there, but reads nothing."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client hangs up.

    Raises:
        Gone: it did.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        unfinished = [future for future in (task, watcher) if future.cancel()]
        await asyncio.gather(*unfinished, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(value: dict[str, Any], name: str = "") -> str:
    """One event of a stream (WHATWG HTML, section 9.2); JSON has no line ends, so that its data is one line."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "") + f"data: {data}\n\n"


LAST = "[DONE]"  # what the last event of a stream says
DONE = f"data: {LAST}\n\n"


def failed(cause: ApiError) -> str:
    """The end of a stream whose work failed after its first event."""
    return event(cause.body) + DONE


class Events(Response):
    """A stream of server-sent events.

    Args:
        first: the first event.
        rest: the others; closed when the answer ends or the client hangs up.
        failed: the events that tell of a failure.
    """

    def __init__(self, first: str, rest: AsyncGenerator[str, None], failed: Callable[[ApiError], str]) -> None:
        self.status_code, self.background, self.media_type = 200, None, "text/event-stream"
        self._first, self._rest, self._failed = first, rest, failed
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._rest):
            try:
                await unless_gone(receive, self._send(send))
            except (Gone, Stalled):
                scope["bimo.gone"] = True

    async def _send(self, send: Send) -> None:
        async def tell(event: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": event.encode(), "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await tell(self._first)
        try:
            async for event in self._rest:
                await tell(event)
        except ApiError as cause:
            await tell(self._failed(cause))
        except BimoError as cause:
            await tell(self._failed(from_bimo(cause)))
        await tell("", more=False)


async def streamed(
    receive: Receive, events: AsyncGenerator[str, None], failed: Callable[[ApiError], str] = failed
) -> Events:
    """An answer of events, once the first is there: what is refused before it keeps its own status.

    Raises:
        Gone: the client hung up before.
    """
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(contextlib.aclosing(events))
        first = await unless_gone(receive, _next(events))
        stack.pop_all()  # from here on, the answer closes them
    return Events(first, events, failed)


class Work(Protocol):
    """A request that is answered at once or as events."""

    def whole(self) -> Coroutine[Any, Any, Response]:
        """All of it at once."""

    def stream(self) -> AsyncGenerator[str, None]:
        """The same as it grows."""


async def answered(
    receive: Receive, work: Work, *, stream: bool | None, failed: Callable[[ApiError], str] = failed
) -> Response:
    """The answer of ``work``, in the form that the client asked for.

    Raises:
        Gone: the client hung up before.
    """
    return await (streamed(receive, work.stream(), failed) if stream else unless_gone(receive, work.whole()))


async def _next(events: AsyncGenerator[str, None]) -> str:
    return await anext(events)
