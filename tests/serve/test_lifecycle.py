"""Requests that wait, are given up, or meet a server that ends; and many of all kinds, which leave nothing behind."""

from __future__ import annotations

import gc
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from bimo.generate.language_model import LanguageModel
from bimo.serve.limits import Limits
from tests.serve.live import Live, serving

COMPLETION = {"model": "tiny", "prompt": "To be", "max_tokens": 9}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "话说"}], "max_tokens": 9}
PATHS = {"/v1/completions": COMPLETION, "/v1/chat/completions": CHAT, "/v1/responses": {"model": "tiny", "input": "x"}}


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


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_stops_the_work(scripted: Any, path: str, stream: bool) -> None:
    live, engine = scripted()
    n = {"n": 3} if path != "/v1/responses" else {}
    with begin(live, path, {**PATHS[path], "stream": stream, **n}) as connection:
        for _ in range(3 if n else 1):
            assert engine.started.acquire(timeout=60)
        if stream:
            assert connection.recv(1_000).startswith(b"HTTP/1.1 200")
    for _ in range(3 if n else 1):
        assert engine.stopped.acquire(timeout=60)
    assert engine.cancelled == (3 if n else 1) and engine.running() == 0
    until(lambda: live.served.shared.metrics.disconnects == 1 and live.served.shared.admission.active == 0)


def test_hanging_up_while_waiting(scripted: Any) -> None:
    live, engine = scripted(limits=Limits(running=1))
    with begin(live, "/v1/completions", COMPLETION):
        assert engine.started.acquire(timeout=60)
        with begin(live, "/v1/completions", COMPLETION):
            until(lambda: live.served.shared.admission.waiting == 1)
        until(lambda: live.served.shared.admission.waiting == 0)
        engine.release()
    until(lambda: live.served.shared.admission.active == 0)
    assert len(engine.asked) == 1, "the second never began"


def test_a_full_queue(scripted: Any) -> None:
    live, engine = scripted(limits=Limits(running=1, queue=1))
    with begin(live, "/v1/completions", COMPLETION), begin(live, "/v1/chat/completions", CHAT):
        until(lambda: live.served.shared.admission.waiting == 1)
        for stream in (False, True):
            answer = live.send("/v1/completions", {**COMPLETION, "stream": stream})
            assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
            assert answer.error["code"] == "overloaded" and answer.error["type"] == "server_error"
        assert live.send("/health").status == 200
        assert live.send("/tokenize", {"prompt": "x"}).status == 200
        until(lambda: len(engine.asked) == 1)
        engine.release()
        until(lambda: len(engine.asked) == 2)
        engine.release()


def test_waiting_too_long(scripted: Any) -> None:
    live, engine = scripted(limits=Limits(running=1, queue_seconds=0.05))
    with begin(live, "/v1/completions", COMPLETION):
        assert engine.started.acquire(timeout=60)
        answer = live.send("/v1/completions", COMPLETION)
        assert answer.status == 503 and "too long" in answer.error["message"]
        engine.release()


def test_draining(scripted: Any) -> None:
    live, engine = scripted()
    with begin(live, "/v1/completions", COMPLETION) as running, ThreadPoolExecutor() as pool:
        assert engine.started.acquire(timeout=60)
        live.server.handle_exit(signal.SIGTERM, None)
        answer = live.send("/v1/completions", COMPLETION)
        assert answer.status == 503 and answer.error["code"] == "shutting_down" and "retry-after" in answer.headers
        assert live.send("/tokenize", {"prompt": "x"}).status == 503
        assert live.send("/health").status == 503 and live.send("/health").json == {"status": "draining"}
        reading = pool.submit(running.recv, 65_536)
        engine.release()
        assert reading.result().startswith(b"HTTP/1.1 200")
    until(lambda: not live.server.servers or not any(server.is_serving() for server in live.server.servers))


def test_what_does_not_end_in_time_is_cut_off(scripted: Any) -> None:
    live, engine = scripted(limits=Limits(drain_seconds=0.1))
    with begin(live, "/v1/completions", {**COMPLETION, "stream": True}):
        assert engine.started.acquire(timeout=60)
        live.server.handle_exit(signal.SIGTERM, None)
        assert engine.stopped.acquire(timeout=60)
    assert engine.running() == 0


class Mixed:
    """Requests of all kinds, good and bad, in an order that depends on the seed."""

    def __init__(self, live: Live, seed: int) -> None:
        self.live, self.random = live, random.Random(seed)
        self.expected = live.send("/v1/completions", {**COMPLETION, "temperature": 0}).json["choices"]

    def one(self, kind: int) -> None:
        live = self.live
        if kind == 0:
            answer = live.send("/v1/completions", {**COMPLETION, "temperature": 0})
            assert answer.status == 200 and answer.json["choices"] == self.expected
        elif kind == 1:
            events = live.events("/v1/chat/completions", CHAT)
            assert events[-1]["choices"][0]["finish_reason"]
        elif kind == 2:
            assert live.send("/v1/completions", raw=b'{"model": ').status == 400
        elif kind == 3:
            assert live.send("/v1/completions", {**COMPLETION, "temperature": 9}).status == 400
        elif kind == 4:
            with begin(live, "/v1/completions", {**COMPLETION, "max_tokens": 150, "stream": True}) as connection:
                connection.recv(1 + self.random.randrange(300))
        elif kind == 5:
            with socket.create_connection(("127.0.0.1", live.port)) as connection:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
        elif kind == 6:
            assert live.send("/v1/embeddings", {"model": "tiny", "input": ["a", "话"]}).status == 200
        elif kind == 7:
            assert live.send("/v1/responses", {"model": "tiny", "input": "x", "max_output_tokens": 3}).status == 200
        else:
            assert live.send("/v1/models/nope").status == 404

    def run(self, count: int) -> None:
        kinds = [self.random.randrange(9) for _ in range(count)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(self.one, kinds))
        until(lambda: self.live.served.shared.admission.active == 0 and self.live.served.engine.running() == 0)


def test_five_hundred_requests_leave_nothing_behind(model: LanguageModel) -> None:
    _leaves_nothing(model, 100, 500, allowed=16e6)


@pytest.mark.slow
def test_ten_thousand_requests_leave_nothing_behind(model: LanguageModel) -> None:
    _leaves_nothing(model, 2_000, 10_000, allowed=32e6)


def _leaves_nothing(model: LanguageModel, before: int, count: int, *, allowed: float) -> None:
    process = psutil.Process()
    with serving(model) as live:
        mixed = Mixed(live, seed=3)
        mixed.run(before)  # what is allocated once
        gc.collect()
        memory, threads, files = process.memory_info().rss, threading.active_count(), process.num_fds()
        mixed.run(count)
        gc.collect()
        until(lambda: len(live.server.server_state.connections) == 0)
        assert process.memory_info().rss - memory < allowed
        # asyncio keeps a few threads for what would hold it up, and begins them one by one.
        assert threading.active_count() <= threads + 6 and process.num_fds() <= files + 3
        assert live.served.shared.admission.waiting == 0 and live.served.shared.metrics.disconnects > 0


@pytest.fixture
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``bimo serve`` as users start it."""
    words = [sys.executable, "-m", "bimo", "serve", str(folder), "--port", "0", "--name", "tiny"]
    started = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert started.stderr is not None
    try:
        line = started.stderr.readline()
        yield started, int(line.partition("127.0.0.1:")[2].split()[0])
    finally:
        started.kill()
        started.communicate()


def test_the_command_serves_and_ends_in_order(process: tuple[subprocess.Popen[str], int]) -> None:
    started, port = process
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(COMPLETION), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200 and len(json.loads(answer.read())["choices"]) == 1
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 0 and "Traceback" not in errors
    assert "anyone POST /v1/completions 200" in errors and "To be" not in errors
