"""What clients and suites for the API of OpenAI rely on: every parameter known, answers that can be sent back."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from bimo.generate.backend import PAGE
from bimo.generate.constraints import Constraints
from bimo.generate.language_model import LanguageModel
from bimo.serve.chat_request import ChatRequest
from bimo.serve.completions import CompletionRequest
from bimo.serve.embeddings import EmbeddingRequest
from bimo.serve.fields import Body
from bimo.serve.response_request import ResponseRequest
from bimo.serve.tools import call_schema
from tests.serve.live import Live, serving

HELLO = [{"role": "user", "content": "to be?"}]
TRANSPORT = {"extra_headers", "extra_query", "extra_body", "timeout"}


@pytest.mark.parametrize(
    ("call", "request_body"),
    [
        (lambda client: client.completions.create, CompletionRequest),
        (lambda client: client.chat.completions.create, ChatRequest),
        (lambda client: client.responses.create, ResponseRequest),
        (lambda client: client.embeddings.create, EmbeddingRequest),
    ],
    ids=["completions", "chat", "responses", "embeddings"],
)
def test_every_parameter_of_the_official_client_is_known(call: Callable[[Any], Any], request_body: type[Body]) -> None:
    """Used, accepted without use, or refused with the reason; none is called unknown."""
    offered = set(inspect.signature(call(openai.OpenAI(api_key="none"))).parameters) - TRANSPORT
    known = {field.alias or name for name, field in request_body.model_fields.items()} | set(request_body.refused)
    assert len(offered) >= 5 and offered <= known


def dumped(value: BaseModel) -> dict[str, Any]:
    """As programs keep an answer: with every field that the client knows, most of them null."""
    return json.loads(value.model_dump_json())


def test_an_answer_can_be_sent_back(scripted: Callable[..., Any]) -> None:
    call = '<tool_call>{"name": "f", "arguments": {"x": "话"}}</tool_call>'
    live, engine = scripted(f"Well. {call}")
    tools = [{"type": "function", "function": {"name": "f"}}]
    message = live.client.chat.completions.create(model="tiny", messages=HELLO, tools=tools).choices[0].message
    assert message.content == "Well. " and message.tool_calls is not None
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7"}
    for kept in (message, dumped(message)):
        live.client.chat.completions.create(model="tiny", messages=[*HELLO, kept, result], tools=tools)
    assert engine.asked[-1][0] == engine.asked[-2][0]
    shown = live.served.tokenizer.decode(engine.asked[-1][0])
    assert "Well. <tool_call>" in shown and '"话"' in shown

    answer = live.client.responses.create(model="tiny", input=HELLO)
    for item in (*answer.output, *map(dumped, answer.output)):
        live.client.responses.create(model="tiny", input=[*HELLO, item, {"role": "user", "content": "and?"}])
    assert engine.asked[-1][0] == engine.asked[-2][0]
    assert "Well." in live.served.tokenizer.decode(engine.asked[-1][0])


def test_no_tokens_are_no_mistake(live: Live) -> None:
    """OpenAI's least ``max_tokens`` of a completion is 0."""
    asked = {"model": "tiny", "prompt": ["To be", "话说"], "max_tokens": 0, "logprobs": 2}
    answer = live.client.completions.create(**asked)  # type: ignore[call-overload]
    assert [(choice.index, choice.text, choice.finish_reason) for choice in answer.choices] == [
        (0, "", "length"),
        (1, "", "length"),
    ]
    assert answer.usage.completion_tokens == 0 and answer.choices[0].logprobs.tokens == []
    chunks = list(live.client.completions.create(**asked, stream=True))  # type: ignore[call-overload]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == ["length", "length"]


def test_a_known_beginning_is_counted_as_cached(model: LanguageModel) -> None:
    """For the key that sent it; what another key sent is not to be found out by how fast an answer comes."""
    keys = {name: f"{name}-0123456789abcdef" for name in ("ann", "bob")}
    ids = model.tokenizer.encode("to be 话说天下 " * 9)
    assert len(ids) > 2 * PAGE

    def cached(live: Live, name: str, prompt: list[int], **options: Any) -> Any:
        client = live.client.with_options(api_key=keys[name])
        asked = {"model": "tiny", "prompt": prompt, "max_tokens": 3, "temperature": 0, **options}
        answer = client.completions.create(**asked)  # type: ignore[call-overload]
        return answer.usage.prompt_tokens_details.cached_tokens, answer.choices[0].text

    with serving(model, keys=keys) as live:
        first, again = cached(live, "ann", ids), cached(live, "ann", ids)
        whole = (len(ids) - 1) // PAGE * PAGE  # the last token is computed in any case
        assert first[0] == 0 and again == (whole, first[1])
        assert cached(live, "ann", [*ids, 5])[0] >= whole
        assert cached(live, "bob", ids) == first
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "to be 话说天下 " * 9}], "max_tokens": 1}
        client = live.client.with_options(api_key=keys["ann"])
        counts = [client.chat.completions.create(**chat).usage for _ in range(2)]  # type: ignore[call-overload]
        assert [usage.prompt_tokens_details.cached_tokens > 0 for usage in counts] == [False, True]
        responded = client.responses.create(model="tiny", input=chat["messages"], max_output_tokens=1)  # type: ignore[arg-type]
        assert responded.usage is not None
        assert responded.usage.input_tokens_details.cached_tokens == counts[1].prompt_tokens_details.cached_tokens


def test_the_same_seed_gives_the_same_answer(live: Live) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": "To be", "max_tokens": 12, "n": 2}),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 12, "n": 2}),
    ):
        answers = [
            live.send(path, {"model": "tiny", "temperature": 1.5, **body, "seed": seed}).json for seed in (-7, -7, 8)
        ]
        assert answers[0]["choices"] == answers[1]["choices"] != answers[2]["choices"]
        assert answers[0]["choices"][0] != {**answers[0]["choices"][1], "index": 0}, "two choices are two draws"
        assert answers[0]["id"] != answers[1]["id"]
        assert answers[0]["system_fingerprint"] == answers[1]["system_fingerprint"]


# The first two are compiled, but no text can be written of one, and the other asks for too much at its first token.
ENDLESS = {"$ref": "#"}
WIDE = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1_500)}}
NONSENSE = {"type": "nonsense"}


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        (ENDLESS, "response_format"),
        (WIDE, "response_format"),
        (NONSENSE, "response_format"),
        (NONSENSE, "tools"),
        (WIDE, "text.format"),
        (NONSENSE, "text.format"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_schema_that_cannot_be_followed_is_the_request_s_fault(
    live: Live, schema: dict[str, Any], param: str
) -> None:
    named = {"name": "x", "schema": schema}
    chat: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 9}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    path, body = {
        "response_format": (
            "/v1/chat/completions",
            {**chat, "response_format": {"type": "json_schema", "json_schema": named}},
        ),
        "tools": ("/v1/chat/completions", {**chat, "tools": [tool], "tool_choice": "required"}),
        "text.format": (
            "/v1/responses",
            {"model": "tiny", "input": "x", "text": {"format": {**named, "type": "json_schema"}}},
        ),
    }[param]
    answer = live.send(path, body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_json_schema", param)
    assert live.send("/health").status == 200


PLACES: dict[str, list[Any]] = {"f": ["北京", "Rom"], "g": [3, 5]}


def placed(name: str) -> dict[str, Any]:
    """A function whose schema refers to its own parts, as pydantic writes them."""
    parameters = {
        "type": "object",
        "$defs": {"Place": {"enum": PLACES[name]}},
        "properties": {"place": {"$ref": "#/$defs/Place"}, "$ref": {"type": "null"}},
        "required": ["place", "$ref"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_the_schema_of_a_function_may_refer_to_its_own_parts(live: Live) -> None:
    for seed in range(4):
        answer = live.client.chat.completions.create(  # type: ignore[call-overload]
            model="tiny", messages=HELLO, tools=[placed("f")], tool_choice="required", seed=seed, max_tokens=90
        )
        (call,) = answer.choices[0].message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert arguments["place"] in PLACES["f"] and arguments["$ref"] is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"name":"f","arguments":{"place":"Rom","$ref":null}}', True),
        ('{"name":"g","arguments":{"place":5,"$ref":null}}', True),
        ('{"name":"g","arguments":{"place":"Rom","$ref":null}}', False),
    ],
)
def test_the_parts_of_several_functions_are_kept_apart(model: LanguageModel, text: str, right: bool) -> None:
    rule = Constraints(model.tokenizer, model.conventions.turn_ends).json_schema(
        call_schema([placed("f"), placed("g")], None)
    )
    place, ids = rule.start(), model.tokenizer.encode(text)
    taken = 0
    while taken < len(ids) and place.allowed()[ids[taken]]:
        place.advance(ids[taken])
        taken += 1
    assert (taken == len(ids)) == right


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_off_is_a_call_all_the_same(scripted: Callable[..., Any], stream: bool) -> None:
    live, _ = scripted('{"name":"f","arguments":{"place":"北京')
    asked = {"model": "tiny", "messages": HELLO, "tools": [placed("f")], "tool_choice": "required"}
    limit = len(live.served.tokenizer.encode('{"name":"f","arguments":{"place":"'))
    answer = live.client.chat.completions.create(**asked, max_tokens=limit, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
    said = [choice.delta if stream else choice.message for choice in choices]
    assert not any(part.content for part in said) and choices[-1].finish_reason == "length"
    (call,) = [call for part in said for call in part.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("f", '{"place":"')
