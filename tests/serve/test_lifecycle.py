"""Requests that wait, are given up, or meet a server that ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bimo.serve.limits import Limits
from tests.serve.live import begin, until

COMPLETION = {"model": "tiny", "prompt": "To be", "max_tokens": 9}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "话说"}], "max_tokens": 9}
PATHS = {"/v1/completions": COMPLETION, "/v1/chat/completions": CHAT, "/v1/responses": {"model": "tiny", "input": "x"}}


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
