"""HTTP over a Unix socket to a server that is ours: one request a connection, and hanging up cancels it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11

PIECE = 65_536  # bytes read at once
BROKEN = (OSError, EOFError, h11.RemoteProtocolError)  # what a request raises if the server goes away


@dataclass
class Answer:
    """An answer that may still be coming.

    Attributes:
        status: of HTTP.
    """

    status: int
    _connection: h11.Connection
    _reader: asyncio.StreamReader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        while not isinstance(event := await _next(self._connection, self._reader), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def json(self) -> Any:
        """The whole body.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(b"".join([piece async for piece in self.pieces()]))

    async def events(self) -> AsyncIterator[str]:
        """The data of each server-sent event, every one of one line."""
        rest = b""
        async for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data: "):
                    yield line[len(b"data: ") :].rstrip(b"\r").decode()


@contextlib.asynccontextmanager
async def asking(socket: Path, method: str, path: str, body: Any = None) -> AsyncIterator[Answer]:
    """Send a request, with JSON if there is a ``body``; leaving hangs up.

    Raises:
        OSError, EOFError, h11.RemoteProtocolError: the server is not there or goes away, also while the body is read.
    """
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        connection = h11.Connection(h11.CLIENT)
        headers = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(data))}
        for event in (h11.Request(method=method, target=path, headers=[*headers.items()]), h11.Data(data)):
            writer.write(connection.send(event) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        while not isinstance(response := await _next(connection, reader), h11.Response):
            pass
        yield Answer(response.status_code, connection, reader)
    finally:
        writer.close()


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(PIECE))
    if isinstance(event, h11.ConnectionClosed):
        raise EOFError("the server hung up")
    return event
