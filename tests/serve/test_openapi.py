"""The published schema is true: real answers obey it, and so does what the server takes and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from bimo.serve import answer_schemas as answers
from bimo.serve.app import create_app
from bimo.serve.hosts import Hosts
from bimo.serve.openapi import OPERATIONS, document

HELLO = [{"role": "user", "content": "to be?"}]


def exchanges() -> Iterator[tuple[str, dict[str, Any], type[BaseModel], type[BaseModel] | None]]:
    text = {"prompt": ["To be", "话说"], "n": 2, "max_tokens": 5}
    yield "/v1/completions", {**text, "echo": True, "logprobs": 2}, answers.Completion, answers.Completion
    yield "/v1/completions", text, answers.Completion, answers.Completion
    chat = {"messages": HELLO, "max_tokens": 5, "n": 2}
    yield "/v1/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2}, answers.Chat, answers.ChatChunk
    yield "/v1/chat/completions", chat, answers.Chat, answers.ChatChunk
    yield "/v1/responses", {"input": "x", "max_output_tokens": 5}, answers.Response, None
    yield "/v1/embeddings", {"input": ["a", "b"]}, answers.Embeddings, None
    yield "/v1/embeddings", {"input": "a", "encoding_format": "base64"}, answers.Embeddings, None
    yield "/tokenize", {"prompt": "x", "return_token_strs": True}, answers.Tokens, None
    yield "/detokenize", {"tokens": [5, 6]}, answers.Detokenized, None


@pytest.mark.parametrize(("path", "body", "answer", "chunk"), list(exchanges()), ids=lambda value: str(value)[:30])
def test_answers_obey_the_schema(live: Any, path: str, body: Any, answer: Any, chunk: Any) -> None:
    answer.model_validate(live.send(path, {"model": "tiny", **body}).json, strict=True)
    if chunk is not None:
        for event in live.events(path, {**body, "stream_options": {"include_usage": True}}):
            chunk.model_validate(event, strict=True)


def test_small_answers_obey_it_too(live: Any, scripted: Any) -> None:
    answers.ModelList.model_validate(live.send("/v1/models").json, strict=True)
    answers.ModelFacts.model_validate(live.send("/v1/models/tiny").json, strict=True)
    answers.Health.model_validate(live.send("/health").json, strict=True)
    answers.Version.model_validate(live.send("/version").json, strict=True)
    tool = {"type": "function", "function": {"name": "a"}}
    body = {"model": "tiny", "messages": HELLO, "tools": [tool]}
    other, _ = scripted('<tool_call>{"name": "a", "arguments": {}}</tool_call>')
    answers.Chat.model_validate(other.send("/v1/chat/completions", body).json, strict=True)
    for event in other.events("/v1/chat/completions", body):
        answers.ChatChunk.model_validate(event, strict=True)


def test_every_route_is_described(live: Any) -> None:
    app: Any = create_app(live.models, Hosts())
    routes = {
        (method.lower(), route.path.replace(":path}", "}"))
        for route in app._app.routes
        for method in route.methods - {"HEAD"}
    }
    assert routes - {("get", "/docs"), ("get", "/openapi.json")} == set(OPERATIONS)
    assert live.send("/openapi.json").json == document()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (str(target) for key, target in value.items() if key == "$ref")
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_the_document_is_whole() -> None:
    schemas = document()["components"]["schemas"]
    assert {name.rpartition("/")[2] for name in references(document())} <= set(schemas)
    request = schemas["ChatRequest"]
    assert request["additionalProperties"] is False and set(request["required"]) == {"model", "messages"}
    assert "logit_bias" in request["properties"] and "best_of" in schemas["CompletionRequest"]["properties"]
    assert all(schema.get("description") for schema in schemas.values())
    answer = document()["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    chunk, end = answer["schema"]["properties"]["data"]["anyOf"]
    assert [name.rpartition("/")[2] for name in references(chunk)] == ["Completion", "Error"] and end == {
        "const": "[DONE]"
    }


def test_the_page_needs_nothing_from_elsewhere(live: Any) -> None:
    page = live.send("/docs")
    text = page.body.decode("utf-8")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "http://" not in text and "https://" not in text and "<script" not in text
    for _, path in OPERATIONS:
        assert path in text
    assert "frequency_penalty" in text and "ChatRequest" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "post"])
def test_schemathesis_finds_nothing(live: Any, path: str) -> None:
    """Requests made from the schema, right and wrong, get an answer that the schema describes, and never a 500."""
    import hypothesis
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")
    (operation,) = [one for one in (found.ok() for found in schema.get_all_operations()) if one.path == path]

    @hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=operation.as_strategy())
    def check(case: Any) -> None:
        if isinstance(case.body, dict):
            case.body = {**case.body, "model": "tiny"}
            for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
                if isinstance(case.body.get(name), int):
                    case.body[name] = min(case.body[name], 5)
        answer = case.call(base_url=f"http://127.0.0.1:{live.port}")
        assert answer.status_code < 500, answer.text
        # What a schema cannot say: the fields of a role, the vocabulary, the context, one of two fields.
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    check()
