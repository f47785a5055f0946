"""The server process: a port that is ours, connections that may not dawdle, an orderly end."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bimo.errors import UsageError
from bimo.serve.admission import overloaded
from bimo.serve.app import create_app
from bimo.serve.errors import ApiError
from bimo.serve.hosts import Hosts
from bimo.serve.limits import HEADER_BYTES
from bimo.serve.page_routes import OPEN, page_routes
from bimo.serve.served import Models, Shared

HEADER_SECONDS = 10.0  # from a connection's start to its first whole request
KEEP_ALIVE_SECONDS = 30
CONNECTIONS = 1_000


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; clients that come before the server is ready wait.

    Raises:
        UsageError: the port is in use or the address is not this machine's.
    """
    if not 0 <= port < 65_536:
        raise UsageError(f"Port {port} cannot be used.", expected="0 to 65535", got=str(port))
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as cause:
        fix = "Choose another --host or --port."
        raise UsageError(f"{host} port {port} cannot be used.", got=str(cause), fix=fix) from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(CONNECTIONS)
    except OSError as cause:
        found.close()
        fix = "Choose another --port, or 0 for any that is free."
        raise UsageError(f"{host} port {port} cannot be used.", got=str(cause), fix=fix) from None
    return found


def start(host: str, port: int, hosts: Hosts, load: Callable[[], Models]) -> None:
    """Serve models until a signal.

    Args:
        load: gives the models; called once the port is taken.

    Raises:
        BimoError: the port or a model cannot be used.
    """
    with bound_socket(host, port) as found:
        models = load()
        address = f"http://{f'[{host}]' if ':' in host else host}:{found.getsockname()[1]}"
        names = ", ".join(served.name for served in models)
        print(f"{names}: {address}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        run(models, hosts, found)


class Server(uvicorn.Server):
    """A server that ends in two steps: first new work is refused and running work finished, then connections close."""

    def __init__(self, app: ASGIApp, shared: Shared) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=2 * HEADER_BYTES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
            )
        )
        self._shared = shared
        self._draining: asyncio.Task[None] | None = None
        self._stopped = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end at the first signal; at the second, end at once."""
        if self._stopped:
            self.force_exit = self.should_exit = True
        self._stopped = self._shared.admission.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._stopped and self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        admission = self._shared.admission
        try:
            async with asyncio.timeout(self._shared.limits.drain_seconds):
                while admission.active or admission.waiting:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            logging.getLogger("bimo.serve").warning("%d requests were cut off", admission.active)
        self.should_exit = True


class Connection(H11Protocol):
    """A connection that is closed if a request does not arrive soon once it has begun."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self.send_refusal(overloaded("The server has as many connections as it may."))
        else:
            self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Wait no longer once a request is whole; begin anew at the first bytes of the next."""
        if self._patience is None and not self._busy:
            self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up)
        super().data_received(data)
        if self._busy:
            self._stop_waiting()

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        if not self._busy and not self.transport.is_closing():
            self.send_refusal(ApiError(408, "No request arrived in time.", code="request_timeout"))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP as everything else is answered."""
        self.send_refusal(ApiError(400, "Invalid HTTP request received.", code="invalid_http"))

    def send_refusal(self, refusal: ApiError) -> None:
        """Answer without a request, and close."""
        body = bytes(refusal.response().body)
        head = f"HTTP/1.1 {refusal.status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


def set_up_log() -> None:
    """Write the log to standard error: who, which route, which status, how long; never what was said."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    # asyncio would warn of every piece that is written to a client who has just hung up.
    for name, level in (("bimo.serve", logging.INFO), ("uvicorn.error", logging.ERROR), ("asyncio", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def run(models: Models, hosts: Hosts, found: socket.socket) -> None:
    """Serve until a signal; SIGTERM and Ctrl-C drain."""
    set_up_log()
    app = create_app(models, hosts, pages=page_routes(models), open_paths=OPEN)
    Server(app, models.shared).run(sockets=[found])
