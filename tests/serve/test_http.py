"""HTTP as clients other than browsers and libraries speak it, and as attackers do."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from bimo.serve import limits
from bimo.serve.chat_request import ChatRequest
from bimo.serve.completions import CompletionRequest
from bimo.serve.errors import ApiError
from bimo.serve.fields import Body
from bimo.serve.strict_json import parse
from bimo.serve.tokens import DetokenizeRequest
from tests.serve.live import Live

BODY = json.dumps({"model": "tiny", "prompt": "To be", "max_tokens": 2, "temperature": 0}).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKS = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n0\r\n\r\n"


def post(headers: bytes, version: bytes = b"1.1") -> bytes:
    fixed = b"Host: localhost\r\nContent-Type: application/json\r\n"
    return b"POST /v1/completions HTTP/" + version + b"\r\n" + fixed + headers + b"\r\n"


class Wire:
    """A connection over which bytes go as they are."""

    def __init__(self, live: Live) -> None:
        self._socket = socket.create_connection(("127.0.0.1", live.port), timeout=30)
        self._read = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def until(self, sign: bytes) -> bytes:
        """Everything up to ``sign``, and it."""
        while sign not in self._read:
            if not (part := self._socket.recv(65_536)):
                raise EOFError(self._read)
            self._read += part
        found, _, self._read = self._read.partition(sign)
        return found + sign

    def answer(self) -> tuple[int, bytes, Any]:
        """The next answer: status, head, JSON."""
        head = self.until(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)\r\n", head)
        assert length is not None
        while len(self._read) < int(length[1]):
            self._read += self._socket.recv(65_536)
        body, self._read = self._read[: int(length[1])], self._read[int(length[1]) :]
        return int(head.split()[1]), head, json.loads(body)

    def ended(self) -> bool:
        """Whether the server has closed the connection, after what was read."""
        return not self._read and not self._socket.recv(1)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def wire(live: Live) -> Any:
    wire = Wire(live)
    yield wire
    wire.close()


def test_http_1_0(wire: Wire) -> None:
    wire.send(post(LENGTH, b"1.0") + BODY)
    status, _, answer = wire.answer()
    assert status == 200 and len(answer["choices"]) == 1 and wire.ended()


def test_a_stream_to_http_1_0_is_not_in_chunks(live: Live, wire: Wire) -> None:
    body = BODY[:-1] + b', "stream": true}'
    wire.send(post(b"Content-Length: %d\r\n" % len(body), b"1.0") + body)
    head = wire.until(b"\r\n\r\n")
    assert b"200" in head and b"transfer-encoding" not in head.lower()
    assert wire.until(b"data: [DONE]\n\n").startswith(b"data: {") and wire.ended()


def test_requests_in_one_go_are_answered_in_order(wire: Wire) -> None:
    wire.send(post(LENGTH) + BODY + b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n" + post(LENGTH) + BODY)
    first, version, last = (wire.answer() for _ in range(3))
    assert first[0] == version[0] == last[0] == 200 and "version" in version[2]
    assert first[2]["choices"] == last[2]["choices"] and first[2]["id"] != last[2]["id"]


def test_a_body_in_chunks(wire: Wire) -> None:
    wire.send(post(b"Transfer-Encoding: chunked\r\n") + CHUNKS)
    assert wire.answer()[0] == 200


def test_a_body_that_waits_to_be_asked_for(live: Live, wire: Wire) -> None:
    wire.send(post(LENGTH + b"Expect: 100-continue\r\n"))
    assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
    wire.send(BODY)
    assert wire.answer()[0] == 200
    wire.send(post(b"Content-Length: 99999999\r\nExpect: 100-continue\r\n"))
    status, _, answer = wire.answer()
    assert status == 413 and answer["error"]["code"] == "request_too_large" and wire.ended()


@pytest.mark.parametrize(
    "request_",
    [
        post(LENGTH + b"Transfer-Encoding: chunked\r\n") + CHUNKS,
        post(b"Content-Length: 5\r\nContent-Length: 6\r\n") + BODY,
        post(b"Content-Length: -5\r\n") + BODY,
        post(b"Transfer-Encoding: gzip\r\n") + BODY,
        post(b"Transfer-Encoding: chunked\r\n") + b"zz\r\n" + BODY,
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
    ],
    ids=lambda value: str(value[-40:]),
)
def test_what_two_programs_could_read_in_two_ways_is_refused(wire: Wire, request_: bytes) -> None:
    """And what follows on the connection is not read: it may be a request in the eyes of one of them only."""
    wire.send(request_)
    status, _, answer = wire.answer()
    assert status in (400, 501) and answer["error"]["type"] == "invalid_request_error"
    assert b"Content-Length" not in request_ or wire.ended()


def test_heads_have_no_body(wire: Wire) -> None:
    for path in (b"/health", b"/v1/models", b"/v1/completions"):
        wire.send(b"HEAD " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = wire.until(b"\r\n\r\n")
        assert int(head.split()[1]) == (405 if path == b"/v1/completions" else 200)


@pytest.mark.parametrize(
    "path", ["/v1/completions/", "//v1/models", "/v1", "/v1/", "/V1/models", "/v1/models;x", "/%00"]
)
def test_other_addresses_lead_nowhere(live: Live, path: str) -> None:
    answer = live.send(path)
    assert answer.status == 404 and answer.error["code"] == "unknown_url"


def test_a_websocket_is_no_request(wire: Wire) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
    wire.send(b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"\r\n")
    assert wire.answer()[0] == 405


MANY = {f"key {number}": 1 for number in range(30_000)}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (CompletionRequest, {"model": "tiny", "prompt": "x", **MANY}),
        (ChatRequest, {"model": "tiny", "messages": [{"role": "user", "content": "x", **MANY}]}),
        (DetokenizeRequest, {"tokens": ["x"] * 30_000}),
    ],
)
def test_a_body_full_of_mistakes_costs_no_more_than_one(kind: type[Body], value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate(parse(json.dumps(value).encode()))
    assert refusal.value.error_count() == 1


def test_looking_for_a_key_that_occurs_twice_takes_one_pass() -> None:
    """Comparing all keys with all others would take hours."""
    keys = [f'"{number}":1' for number in range(300_000)]
    with pytest.raises(ApiError, match='the key "299999" occurs twice'):
        parse(("{" + ",".join([*keys, keys[-1]]) + "}").encode())


def test_brackets_are_counted_no_further_than_they_may_go(live: Live) -> None:
    answer = live.send("/v1/completions", raw=b"[" * limits.Limits().body_bytes)
    assert answer.status == 400 and answer.error["code"] == "json_too_deep"


def test_what_is_echoed_of_a_mistake_is_short(live: Live, scripted: Callable[..., Any]) -> None:
    long = "x" * 100_000
    for body in (
        {"model": "tiny", "prompt": "x", long: 1},
        {"model": "tiny", "prompt": "x", "stream_options": {long: 1}, "stream": True},
        {"model": long, "prompt": "x"},
        {"model": "tiny", "prompt": "x", "logit_bias": {long: 1}},
        {"model": "tiny", "prompt": "x", "stop": [long]},
    ):
        answer = live.send("/v1/completions", body)
        assert answer.status == 400 and len(answer.body) < 1_000
    chat = {"model": "tiny", "messages": [{"role": long, "content": "x"}]}
    assert len(live.send("/v1/chat/completions", chat).body) < 1_000
    assert (
        len(live.send("/v1/responses", {"model": "tiny", "input": "x", "previous_response_id": "x" * 256}).body) < 1_000
    )
