"""Every refusal: its status, its parameter and its code, in OpenAI's shape."""

from __future__ import annotations

import re
import socket
from typing import Any

import openai
import pytest

from bimo.errors import ModelError, UsageError
from bimo.serve import answer_schemas, limits
from bimo.serve.errors import from_bimo, without_paths
from bimo.serve.limits import Limits

COMPLETION, CHAT, RESPONSE, EMBEDDING = "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
GOOD: dict[str, dict[str, Any]] = {
    COMPLETION: {"model": "tiny", "prompt": "To be", "max_tokens": 2},
    CHAT: {"model": "tiny", "messages": [{"role": "user", "content": "话说"}], "max_tokens": 2},
    RESPONSE: {"model": "tiny", "input": "话说", "max_output_tokens": 2},
    EMBEDDING: {"model": "tiny", "input": "话说"},
    "/tokenize": {"prompt": "话说"},
    "/detokenize": {"tokens": [1, 2]},
}
DEEP: Any = 1
for _ in range(limits.JSON_DEPTH):
    DEEP = [DEEP]
TOOL = {"type": "function", "function": {"name": "a"}}
IMAGE = [{"type": "image_url", "image_url": {"url": "http://example.org/x.png"}}]


def said(role: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, **more}]}


WRONG = [
    (COMPLETION, {"model": None}, "model", "invalid_type"),
    (COMPLETION, {"model": 3}, "model", "invalid_type"),
    (COMPLETION, {"prompt": 3}, "prompt", "invalid_type"),
    (COMPLETION, {"prompt": []}, "prompt", "empty_array"),
    (COMPLETION, {"prompt": ["a", 3]}, "prompt", "invalid_type"),
    (COMPLETION, {"prompt": [[1], []]}, "prompt", "invalid_type"),
    (COMPLETION, {"prompt": [True]}, "prompt", "invalid_type"),
    (COMPLETION, {"prompt": [-1]}, "prompt", "invalid_value"),
    (COMPLETION, {"prompt": [10**9]}, "prompt", "invalid_value"),
    (COMPLETION, {"prompt": ["a"] * (limits.PROMPTS + 1)}, "prompt", "array_above_max_length"),
    (COMPLETION, {"prompt": "q" * 1_000_000}, "prompt", "context_length_exceeded"),
    (COMPLETION, {"max_tokens": 1_000}, "prompt", "context_length_exceeded"),
    (COMPLETION, {"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
    (COMPLETION, {"max_tokens": 2**80}, "max_tokens", "integer_above_max_value"),
    (COMPLETION, {"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    (COMPLETION, {"max_tokens": True}, "max_tokens", "invalid_type"),
    (COMPLETION, {"max_tokens": "2"}, "max_tokens", "invalid_type"),
    (COMPLETION, {"temperature": 2.1}, "temperature", "decimal_above_max_value"),
    (COMPLETION, {"temperature": -1}, "temperature", "integer_below_min_value"),
    (COMPLETION, {"temperature": True}, "temperature", "invalid_type"),
    (COMPLETION, {"temperature": "1"}, "temperature", "invalid_type"),
    (COMPLETION, {"top_p": 1.1}, "top_p", "decimal_above_max_value"),
    (COMPLETION, {"n": 0}, "n", "integer_below_min_value"),
    (COMPLETION, {"n": limits.CHOICES + 1}, "n", "integer_above_max_value"),
    (COMPLETION, {"n": limits.CHOICES, "prompt": ["a"] * 99}, "n", "integer_above_max_value"),
    (COMPLETION, {"n": 3, "best_of": 2}, "best_of", "invalid_value"),
    (COMPLETION, {"best_of": 2, "stream": True}, "best_of", "invalid_value"),
    (COMPLETION, {"logprobs": 6}, "logprobs", "integer_above_max_value"),
    (COMPLETION, {"logprobs": True}, "logprobs", "invalid_type"),
    (COMPLETION, {"stop": ["a"] * 5}, "stop", "array_above_max_length"),
    (COMPLETION, {"stop": ["a", ""]}, "stop[1]", "invalid_value"),
    (COMPLETION, {"stop": "a" * (limits.STOP_CHARACTERS + 1)}, "stop", "invalid_value"),
    (COMPLETION, {"stop": [1]}, "stop", "invalid_type"),
    (COMPLETION, {"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
    (COMPLETION, {"logit_bias": {"a": 1}}, "logit_bias", "invalid_type"),
    (COMPLETION, {"logit_bias": {"99999999": 1}}, "logit_bias", "invalid_value"),
    (COMPLETION, {"logit_bias": {str(n): 1 for n in range(2_000)}}, "logit_bias", "object_above_max_properties"),
    (COMPLETION, {"presence_penalty": 3}, "presence_penalty", "integer_above_max_value"),
    (COMPLETION, {"suffix": "end"}, "suffix", "unsupported_parameter"),
    (COMPLETION, {"stream": 1}, "stream", "invalid_type"),
    (COMPLETION, {"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    (COMPLETION, {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
    (COMPLETION, {"seed": 2**63}, "seed", "integer_above_max_value"),
    (COMPLETION, {"seed": 1.0}, "seed", "invalid_type"),
    (COMPLETION, {"repetition_penalty": 0}, "repetition_penalty", "integer_below_min_value"),
    (COMPLETION, {"frobnicate": 1}, "frobnicate", "unknown_parameter"),
    (COMPLETION, {"max tokens?" * 99: 1}, ("max tokens?" * 99)[:80], "unknown_parameter"),
    (CHAT, {"messages": []}, "messages", "empty_array"),
    (CHAT, {"messages": "hi"}, "messages", "invalid_type"),
    (CHAT, {"messages": ["hi"]}, "messages[0]", "invalid_type"),
    (CHAT, said("king", content="x"), "messages[0].role", "invalid_value"),
    (CHAT, said("user"), "messages[0].content", "missing_required_parameter"),
    (CHAT, said("user", content=3), "messages[0].content", "invalid_type"),
    (CHAT, said("user", content=[]), "messages[0].content", "invalid_type"),
    (CHAT, said("user", content=IMAGE), "messages[0].content[0]", "unsupported_content"),
    (CHAT, said("user", content=[{"type": "text", "text": 3}]), "messages[0].content[0].text", "invalid_type"),
    (CHAT, said("user", content="x", wings=2), "messages[0].wings", "unknown_parameter"),
    (CHAT, said("user", content="x", tool_calls=[]), "messages[0].tool_calls", "invalid_value"),
    (CHAT, said("tool", content="x"), "messages[0].tool_call_id", "invalid_value"),
    (CHAT, {"max_tokens": 2, "max_completion_tokens": 2}, "max_tokens", "invalid_value"),
    (CHAT, {"max_tokens": 999}, "messages", "context_length_exceeded"),
    (CHAT, said("user", content="q" * 1_000_000), "messages", "context_length_exceeded"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    (CHAT, {"logprobs": 2}, "logprobs", "invalid_type"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    (CHAT, {"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
    (CHAT, {"tools": [TOOL, TOOL]}, "tools", "invalid_value"),
    (CHAT, {"tools": [{"type": "web"}]}, "tools[0].type", "invalid_value"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
    (CHAT, {"tool_choice": "auto"}, "tool_choice", "invalid_value"),
    (CHAT, {"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
    (
        CHAT,
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "b"}}},
        "tool_choice",
        "invalid_value",
    ),
    (CHAT, {"functions": [{"name": "a"}]}, "functions", "unsupported_parameter"),
    (CHAT, {"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
    (CHAT, {"modalities": ["audio"]}, "modalities[0]", "invalid_value"),
    (RESPONSE, {"input": []}, "input", "empty_array"),
    (RESPONSE, {"input": 3}, "input", "invalid_type"),
    (RESPONSE, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, None, "unsupported_content"),
    (RESPONSE, {"input": [{"type": "function_call_output"}]}, "input[0].type", "invalid_value"),
    (RESPONSE, {"background": True}, "background", "unsupported_parameter"),
    (RESPONSE, {"tools": [TOOL]}, "tools", "unsupported_parameter"),
    (RESPONSE, {"max_output_tokens": 999}, "input", "context_length_exceeded"),
    (RESPONSE, {"previous_response_id": "resp_x"}, "previous_response_id", "previous_response_not_found"),
    (EMBEDDING, {"input": ""}, "input", "invalid_value"),
    (EMBEDDING, {"input": []}, "input", "empty_array"),
    (EMBEDDING, {"input": ["a", ""]}, "input[1]", "invalid_value"),
    (EMBEDDING, {"input": [1] * 601}, "input", "context_length_exceeded"),
    (EMBEDDING, {"dimensions": 8}, "dimensions", "unsupported_parameter"),
    (EMBEDDING, {"encoding_format": "int8"}, "encoding_format", "invalid_value"),
    ("/tokenize", {"prompt": None}, "prompt", "missing_required_parameter"),
    ("/tokenize", {"messages": GOOD[CHAT]["messages"]}, "prompt", "missing_required_parameter"),
    ("/detokenize", {"tokens": [-1]}, "tokens[0]", "integer_below_min_value"),
    ("/detokenize", {"tokens": [2**31 - 1]}, "tokens", "invalid_value"),
    ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "invalid_type"),
]


@pytest.mark.parametrize(("path", "change", "param", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_a_body(live: Any, path: str, change: dict[str, Any], param: str, code: str) -> None:
    answer = live.send(path, {**GOOD[path], **change})
    error = answer_schemas.Error.model_validate(answer.json).error
    assert (answer.status, error.code, error.type) == (400, code, "invalid_request_error"), error
    assert param is None or error.param == param, error
    assert error.message.endswith((".", ".)")) and len(error.message) < 500
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", GOOD)
def test_what_is_right_is_answered(live: Any, path: str) -> None:
    assert live.send(path, GOOD[path]).status == 200
    for name in GOOD[path]:
        if name not in ("max_tokens", "max_output_tokens"):
            body = {key: value for key, value in GOOD[path].items() if key != name}
            answer = live.send(path, body)
            assert answer.status == 400 and answer.error["code"] == "missing_required_parameter", name
            assert answer.error["param"] == name


ALL_NULL = {
    "temperature": None,
    "stop": None,
    "logit_bias": None,
    "n": None,
    "seed": None,
    "stream": None,
    "user": None,
}


def test_null_is_as_good_as_nothing(live: Any) -> None:
    for path in (COMPLETION, CHAT):
        assert (
            live.send(path, {**GOOD[path], **ALL_NULL, "suffix" if path == COMPLETION else "audio": None}).status == 200
        )


NOT_JSON = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"\xff\xfe", "invalid_json"),
    (b'{"model": "tiny", "temperature": NaN}', "invalid_json"),
    (b'{"model": "tiny", "temperature": Infinity}', "invalid_json"),
    (b'{"model": "tiny", "temperature": 1e999}', "invalid_json"),
    (b'{"model": "tiny", "max_tokens": 1' + b"0" * 9_000 + b"}", "invalid_json"),
    (b'{"model": "tiny", "model": "tiny"}', "invalid_json"),
    (b'{"model": "\\ud83d"}', "invalid_json"),
    (b"[1]", "invalid_type"),
    (b'"x"', "invalid_type"),
    (b"[" * 100_000, "json_too_deep"),
    (b'{"a":' * 100_000, "json_too_deep"),
]


@pytest.mark.parametrize(("raw", "code"), NOT_JSON, ids=lambda value: str(value)[:30])
def test_what_is_no_json(live: Any, raw: bytes, code: str) -> None:
    answer = live.send(COMPLETION, raw=raw)
    assert answer.status == 400 and answer.error["code"] == code


@pytest.mark.parametrize("path", [COMPLETION, CHAT, RESPONSE, EMBEDDING, "/tokenize", "/detokenize"])
def test_a_model_that_is_not_there(live: Any, path: str) -> None:
    answer = live.send(path, {**GOOD[path], "model": "gpt-9"})
    assert answer.status == 404 and answer.error["code"] == "model_not_found" and answer.error["param"] == "model"
    with pytest.raises(openai.NotFoundError):
        live.client.models.retrieve("gpt-9")
    assert live.client.models.retrieve("tiny").id == "tiny" == live.client.models.list().data[0].id


def test_urls_and_methods_that_are_not_there(live: Any) -> None:
    for path in ("/v1/edits", "/v1/completions/", "/../etc/passwd", "/v1/responses/resp_x"):
        assert live.send(path).status == 404 and live.send(path).error["message"]
    for method, path in (("GET", COMPLETION), ("PUT", CHAT), ("DELETE", "/v1/models"), ("POST", "/health")):
        answer = live.send(path, method=method)
        assert answer.status == 405 and answer.headers["allow"], path
        assert answer.error["code"] == "method_not_allowed"


def test_media_types(live: Any) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
    ):
        answer = live.send(COMPLETION, GOOD[COMPLETION], headers=headers)
        assert answer.status == 415 and answer.error["code"] == "unsupported_media_type", headers
    right = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert live.send(COMPLETION, GOOD[COMPLETION], headers=right).status == 200


def test_large_bodies_are_refused_before_they_are_read(scripted: Any) -> None:
    live, _ = scripted("x", limits=Limits(body_bytes=1_000))
    answer = live.send(COMPLETION, {**GOOD[COMPLETION], "prompt": "q" * 1_000})
    assert answer.status == 413 and answer.error["code"] == "request_too_large"
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert talk(live.port, head + b"Content-Length: 99999999999999999999\r\n\r\n").startswith(b"HTTP/1.1 413")
    chunks = b"".join(b"100\r\n" + b" " * 256 + b"\r\n" for _ in range(5))  # no end
    assert talk(live.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).startswith(b"HTTP/1.1 413")


def test_slow_bodies_are_given_up(scripted: Any) -> None:
    live, _ = scripted("x", limits=Limits(body_seconds=0.2))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = talk(live.port, head + b'Content-Length: 99\r\n\r\n{"model"')
    assert answer.startswith(b"HTTP/1.1 408") and b'"code":"request_timeout"' in answer


def test_headers_are_bounded(live: Any) -> None:
    assert live.send("/health", headers={f"x-{number}": "x" for number in range(limits.HEADERS)}).status == 431
    assert live.send("/health", headers={"x": "x" * limits.HEADER_BYTES}).status == 431
    answer = talk(live.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: " + b"x" * 100_000)
    assert answer.startswith(b"HTTP/1.1 400") and b"invalid_http" in answer
    assert talk(live.port, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


def talk(port: int, data: bytes) -> bytes:
    """Send bytes as they are and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(65_536):
            found += part
            length = re.search(rb"content-length: (\d+)\r\n.*\r\n\r\n", found, re.DOTALL)
            if length and len(found) >= length.end() + int(length[1]):
                break
        return found


def test_failures_of_the_engine(scripted: Any) -> None:
    live, engine = scripted("x", failure=ModelError("The weights in /srv/models/x.safetensors are damaged."))
    answer = live.send(COMPLETION, {**GOOD[COMPLETION], "max_tokens": 9})
    assert answer.status == 500 and answer.error["type"] == "server_error" and "/srv" not in answer.error["message"]
    events = live.events(CHAT, {**GOOD[CHAT], "max_tokens": 9})
    assert events[0]["choices"] and events[-1]["error"]["code"] == "internal_error"
    raw = live.send(RESPONSE, {**GOOD[RESPONSE], "max_output_tokens": 9, "stream": True}).body.decode()
    assert raw.rstrip().splitlines()[-2] == "event: error"
    with pytest.raises(openai.APIError, match="damaged"):
        list(live.client.chat.completions.create(**{**GOOD[CHAT], "max_tokens": 9}, stream=True))
    engine.failure = RuntimeError("a defect at /srv/x.py")
    answer = live.send(COMPLETION, {**GOOD[COMPLETION], "max_tokens": 9})
    assert answer.status == 500 and answer.error["code"] == "internal_error" and "/srv" not in answer.error["message"]
    assert (live.send("/health").status, live.send("/health").json) == (503, {"status": "failed"})
    engine.failure = None
    assert live.send("/health").json == {"status": "ok"}
    assert live.send(COMPLETION, GOOD[COMPLETION]).status == 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in /home/ann/x.json.", "in (path)"),
        (r"C:\Users\ann\x is gone", "(path) is gone"),
        ("a/b and http://x/y stay", "a/b and http://x/y stay"),
        ("1 / 2", "1 / 2"),
    ],
)
def test_paths_are_not_told(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_whose_fault_a_failure_is() -> None:
    assert from_bimo(UsageError("Wrong.")).status == 400 and from_bimo(ModelError("Broken.")).status == 500
