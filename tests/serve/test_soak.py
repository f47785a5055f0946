"""Thousands of requests, good, bad, given up and slow, all at once: every answer right, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from bimo.generate.language_model import LanguageModel
from bimo.serve.engines.native import NativeEngine
from tests.serve.live import Live, begin, serving, until

TOGETHER = 12  # clients
COMPLETIONS, CHATS, RESPONSES, EMBEDDINGS = "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["北京", "Rom"]}, "wet": {"type": "boolean"}},
    "required": ["city", "wet"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


def good(number: int) -> tuple[str, dict[str, Any]]:
    """A request of one of many kinds, of which each has one right answer."""
    text = ["To be, or", "话说天下", "that is the question: ", "分久必合，" * 9][number % 4] + " be" * (number % 7)
    messages = [{"role": "user", "content": text}]
    seeded = {"seed": number, "temperature": 1.3, "top_p": 0.9}
    path, body = [
        (COMPLETIONS, {"prompt": text, "max_tokens": 9, "temperature": 0, "logprobs": 3}),
        (COMPLETIONS, {"prompt": text, "max_tokens": 15, "n": 3, **seeded}),
        (COMPLETIONS, {"prompt": [text, "合久必分"], "max_tokens": 4, "echo": True, "logprobs": 1, **seeded}),
        (COMPLETIONS, {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 5}),
        (COMPLETIONS, {"prompt": text, "max_tokens": 20, "stop": ["e", "天"], "frequency_penalty": 1, **seeded}),
        (CHATS, {"messages": messages, "max_tokens": 11, "logprobs": True, "top_logprobs": 2, **seeded}),
        (CHATS, {"messages": messages, "max_tokens": 60, "response_format": FORMAT, **seeded}),
        (RESPONSES, {"input": text, "max_output_tokens": 7, "temperature": 0, "store": number % 2 == 0}),
        (EMBEDDINGS, {"input": [text, "话"]}),
    ][number % 9]
    return path, {"model": "tiny", **body}


BAD: list[tuple[bytes, int]] = [
    (b'{"model": ', 400),
    (b'{"model": "tiny", "prompt": "x", "temperature": NaN}', 400),
    (b'{"model": "tiny", "prompt": "x", "max_tokens": -1}', 400),
    (b'{"model": "tiny", "prompt": "x", "wings": 2}', 400),
    (b'{"model": "tiny", "prompt": "' + b"x" * 50_000 + b'"}', 400),
    (b'{"model": "other", "prompt": "x"}', 404),
    (b"[" * 10_000, 400),
    (b'{"a":1,"a":1}', 400),
]


def essence(answer: Any) -> Any:
    """What of an answer is the same each time it is asked for."""
    if isinstance(answer, list):
        return [essence(part) for part in answer]
    if not isinstance(answer, dict):
        return answer
    passing = {"id", "created", "created_at", "cached_tokens", "item_id"}
    return {key: essence(part) for key, part in answer.items() if key not in passing}


def joined(events: list[dict[str, Any]]) -> dict[int, tuple[str, str | None]]:
    """The text and the reason of each choice of a stream."""
    found: dict[int, tuple[str, str | None]] = {}
    for event in events:
        assert "error" not in event, event
        for choice in event["choices"]:
            text, reason = found.get(choice["index"], ("", None))
            assert reason is None, "nothing follows the end of a choice"
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            found[choice["index"]] = (text, choice["finish_reason"])
    return found


@dataclass
class Soak:
    """Clients of one server.

    Attributes:
        expected: what each good request gives when it is alone.
        counts: what was sent.
    """

    live: Live
    random: random.Random
    expected: list[Any] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def learn(self, kinds: int) -> None:
        for number in range(kinds):
            answer = self.live.send(*good(number))
            assert answer.status == 200, answer
            self.expected.append(answer.json)

    def run(self, count: int) -> None:
        """Send requests from several clients; returns once the server has done with all of them."""
        kinds = self.random.choices(
            ("good", "stream", "bad", "gone", "slow", "broken"), (40, 20, 15, 15, 7, 3), k=count
        )
        work = [(kind, self.random.randrange(len(self.expected)), self.random.random()) for kind in kinds]
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(lambda one: self.one(*one), work))
        self.counts.update(kinds)
        until(lambda: self.live.served.shared.admission.active == 0 and self.live.served.engine.running() == 0)
        until(lambda: not self.live.server.server_state.connections)

    def one(self, kind: str, number: int, share: float) -> None:
        path, body = good(number)
        streams = path in (COMPLETIONS, CHATS)
        if kind == "good" or (kind == "stream" and not streams):
            answer = self.live.send(path, body)
            assert answer.status == 200 and essence(answer.json) == essence(self.expected[number]), (number, answer)
        elif kind == "stream":
            found = joined(self.live.events(path, {**body, "stream_options": {"include_usage": True}}))
            choices = self.expected[number]["choices"]
            assert found == {
                choice["index"]: (choice.get("text", choice.get("message", {}).get("content")), choice["finish_reason"])
                for choice in choices
            }, number
        elif kind == "bad":
            raw, status = BAD[number % len(BAD)]
            assert self.live.send(COMPLETIONS, raw=raw).status == status
        elif kind == "gone":
            more = {"stream": share < 0.7} if streams else {}
            longer = {"max_tokens": 150} if "response_format" not in body else {}
            with begin(self.live, path, {**body, **(longer if streams else {}), **more}) as connection:
                if share < 0.5:
                    connection.recv(1 + int(share * 600))
        elif kind == "slow":
            self.slowly(path, body, number)
        else:
            with socket.create_connection(("127.0.0.1", self.live.port)) as connection:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc"[: 1 + int(share * 60)])

    def slowly(self, path: str, body: dict[str, Any], number: int) -> None:
        """Send a request in pieces, and take the answer in pieces."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        whole = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        found = b""
        with socket.create_connection(("127.0.0.1", self.live.port), timeout=60) as connection:
            for start in range(0, len(whole), 1 + len(whole) // 5):
                connection.sendall(whole[start : start + 1 + len(whole) // 5])
                time.sleep(0.02)
            while part := connection.recv(400):
                found += part
                time.sleep(0.001)
        answer = json.loads(found.partition(b"\r\n\r\n")[2])
        assert essence(answer) == essence(self.expected[number]), number


@dataclass(frozen=True)
class Held:
    """What a server holds while nothing is asked of it."""

    memory: int
    threads: int
    files: int
    tasks: int
    pages: int
    jobs: int

    @classmethod
    def now(cls, live: Live) -> Held:
        engine, process = live.served.engine, psutil.Process()
        assert isinstance(engine, NativeEngine)
        loop = live.server.servers[0].get_loop()
        tasks = asyncio.run_coroutine_threadsafe(_tasks(), loop).result(timeout=60)
        gc.collect()
        stats = engine._engine.stats()
        assert live.served.shared.admission.waiting == live.served.shared.admission.active == 0
        return cls(
            memory=process.memory_info().rss,
            threads=threading.active_count(),
            files=process.num_fds(),
            tasks=tasks,
            pages=stats.pages_used,
            jobs=stats.running + stats.waiting + len(engine._engine._handles),
        )


async def _tasks() -> int:
    return len(asyncio.all_tasks())


@pytest.fixture
def soak(model: LanguageModel) -> Iterator[Soak]:
    with serving(model) as live:
        soak = Soak(live, random.Random(3))
        soak.learn(63)
        yield soak


def leaves_nothing(soak: Soak, rounds: int, count: int, *, allowed: float) -> list[Held]:
    """Run rounds of requests, of which the first fills what is kept on purpose, and compare what is held after each."""
    held = []
    for _ in range(rounds):
        soak.run(count)
        held.append(Held.now(soak.live))
    first, last = held[0], held[-1]
    assert all(one.pages == one.jobs == 0 for one in held)
    assert last.tasks <= first.tasks and last.files <= first.files + 3
    # asyncio keeps a few threads for what would hold it up, and begins them one by one.
    assert last.threads <= first.threads + 6
    assert last.memory - first.memory < allowed, held
    assert soak.live.served.shared.metrics.disconnects > 0 and soak.live.served.engine.alive()
    return held


def test_hundreds_of_requests_leave_nothing_behind(soak: Soak) -> None:
    leaves_nothing(soak, 2, 150, allowed=24e6)


@pytest.mark.slow
def test_ten_thousand_requests_leave_nothing_behind(soak: Soak) -> None:
    started = time.process_time()
    held = leaves_nothing(soak, 5, 2_000, allowed=16e6)
    print(f"{time.process_time() - started:.0f} s of processor time, {dict(soak.counts)}")
    print("MB after each 2,000:", [round(one.memory / 1e6, 1) for one in held], held[-1])
