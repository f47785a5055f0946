"""A live server on a free port, how tests talk to it, and an engine that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from bimo.generate.language_model import LanguageModel
from bimo.generate.watermark import Watermark
from bimo.serve.app import create_app
from bimo.serve.engines import Engine, Facts, Settings, Token
from bimo.serve.engines.native import NativeEngine, native_engine
from bimo.serve.hosts import Hosts
from bimo.serve.keys import Keys
from bimo.serve.limits import Limits
from bimo.serve.page_routes import OPEN, page_routes
from bimo.serve.served import Models, Served, Shared
from bimo.serve.server import Server, bound_socket
from bimo.tokenizer.tokenizer import Tokenizer

PAGES = 304  # of the keys and values of an engine


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        assert set(self.json) == {"error"} and set(self.json["error"]) == {"message", "type", "param", "code"}
        return self.json["error"]


@dataclass
class Live:
    """A server that runs."""

    models: Models
    port: int
    server: Server

    @property
    def served(self) -> Served:
        """The first model."""
        return self.models.find(None)

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=60)

    def send(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        try:
            method = method or ("GET" if data is None else "POST")
            connection.request(method, path, data, {**sent, **(headers or {})})
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The data of a stream, after checking its framing."""
        answer = self.send(path, {"model": self.served.name, "stream": True, **body})
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream"), answer
        lines = answer.body.decode("utf-8")
        assert lines.endswith("data: [DONE]\n\n")
        events = lines.removesuffix("data: [DONE]\n\n").split("\n\n")
        assert events.pop() == "" and all(event.startswith("data: ") and "\n" not in event for event in events)
        return [json.loads(event.removeprefix("data: ")) for event in events]


def native_of(model: LanguageModel, watermark: Watermark | None = None) -> NativeEngine:
    """The engine of a loaded model."""
    dtype = str(model.model.output_weight.dtype).removeprefix("torch.")
    return native_engine(model, pages=PAGES, dtype=dtype, watermark=watermark)


@contextlib.contextmanager
def serving(
    model: LanguageModel,
    engine: Engine | None = None,
    *,
    limits: Limits | None = None,
    keys: dict[str, str] | None = None,
    hosts: Hosts | None = None,
    report: Path | None = None,
    pages: bool = False,
) -> Iterator[Live]:
    """A server over a model; with ``pages``, the playground too, as `bimo serve` starts it."""
    served = Served(
        name="tiny",
        created=1_700_000_000,
        engine=engine or native_of(model),
        tokenizer=model.tokenizer,
        conventions=model.conventions,
        shared=Shared(limits or Limits(), Keys(keys or {})),
        report=report,
    )
    with serving_all(Models([served]), hosts=hosts, pages=pages) as live:
        yield live


@contextlib.contextmanager
def serving_all(models: Models, *, hosts: Hosts | None = None, pages: bool = True) -> Iterator[Live]:
    """A server over models."""
    shown: dict[str, Any] = {"pages": page_routes(models), "open_paths": OPEN} if pages else {}
    with bound_socket("127.0.0.1", 0) as found:
        server = Server(create_app(models, hosts or Hosts(["127.0.0.1"]), **shown), models.shared)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]}, daemon=True)
        thread.start()
        try:
            yield Live(models, found.getsockname()[1], server)
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            assert not thread.is_alive()


@dataclass
class ScriptedEngine:
    """Writes what it is told to, one token of the text after the other, and ends; remembers what it was asked.

    A text of ``None`` never ends: its tokens come one for each call of :meth:`release`.
    """

    tokenizer: Tokenizer
    text: str | None = None
    constrains: bool = True
    asked: list[tuple[list[int], Settings]] = field(default_factory=list)
    cancelled: int = 0
    failure: Exception | None = None
    context: int = 900

    def __post_init__(self) -> None:
        self.facts = Facts("scripted", self.context, self.tokenizer.vocab_size, 3, "float32", "fp_1", self.constrains)
        self.started, self.stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._running = 0

    def release(self) -> None:
        """Let all running continuations end."""
        for loop, gate in self._gates:
            loop.call_soon_threadsafe(gate.set)

    async def generate(self, ids: Sequence[int], settings: Settings) -> AsyncGenerator[Token, None]:
        self.asked.append((list(ids), settings))
        drawn = self.tokenizer.encode("x" if self.text is None else self.text)
        self._running += 1
        try:
            for number, id in enumerate(drawn[: settings.max_tokens], start=1):
                reason = "length" if number == settings.max_tokens else None
                yield Token(id, -1.0, ((id, -1.0),), reason, 2)
                self.started.release()
                if reason is not None:
                    return
            if self.text is None:
                gate = asyncio.Event()
                self._gates.append((asyncio.get_running_loop(), gate))
                await gate.wait()
            if self.failure is not None:
                raise self.failure
            yield Token(self.tokenizer.eos_id, -0.5, (), "stop", 2)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self._running -= 1
            self.stopped.release()

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        return [Token(id, None if place == 0 else -1.0) for place, id in enumerate(ids)]

    async def embed(self, ids: Sequence[int]) -> list[float]:
        return [1.0, 0.0, 0.0]

    def running(self) -> int:
        return self._running

    def stats(self) -> None:
        return None

    def alive(self) -> bool:
        return self.failure is None

    async def close(self) -> None:
        self.release()


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(20_000):
        if true():
            return
        time.sleep(0.005)
    pytest.fail("it never happened")


def begin(live: Live, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request and return its connection without waiting for the answer."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", live.port), timeout=60)
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection
