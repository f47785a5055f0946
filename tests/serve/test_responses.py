"""POST /v1/responses through the official client: answers, their events, and conversations that go on."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from bimo.generate.language_model import LanguageModel
from bimo.serve.stored import Store, Stored

OPTIONS = {"model": "tiny", "max_output_tokens": 11, "temperature": 0}


def test_the_answer_is_the_chat_s(live: Any, model: LanguageModel) -> None:
    messages = [{"role": "system", "content": "简短"}, {"role": "user", "content": "to be?"}]
    expected = model.chat(messages, max_new_tokens=11, temperature=0)
    for given in ("to be?", [{"role": "user", "content": [{"type": "input_text", "text": "to be?"}]}]):
        answer = live.client.responses.create(input=given, instructions="简短", **OPTIONS)
        assert answer.output_text == expected
        assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
        assert answer.usage.input_tokens == len(model.chat_ids(messages)) and answer.usage.output_tokens == 11
    assert live.client.responses.retrieve(answer.id) == answer


def test_the_events_of_an_answer(scripted: Any) -> None:
    live, _ = scripted("话说 to be")
    events = list(live.client.responses.create(input="x", stream=True, metadata={"a": "b"}, model="tiny"))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 2 and kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "话说 to be"
    last = events[-1].response
    assert last.output_text == "话说 to be" and last.status == "completed" and last.metadata == {"a": "b"}
    assert live.client.responses.retrieve(last.id) == last
    names = [line for line in _raw(live).splitlines() if line.startswith("event: ")]
    assert len(names) == len(events) and names[0] == "event: response.created"


def _raw(live: Any) -> str:
    return live.send("/v1/responses", {"model": "tiny", "input": "x", "stream": True}).body.decode()


def test_a_conversation_goes_on(scripted: Any) -> None:
    live, engine = scripted("aha")
    first = live.client.responses.create(model="tiny", input="one", instructions="brief")
    second = live.client.responses.create(model="tiny", input="two", previous_response_id=first.id)
    ids = live.served.tokenizer.encode_chat(
        [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "aha"},
            {"role": "user", "content": "two"},
        ]
    )
    assert engine.asked[-1][0] == ids and second.previous_response_id == first.id
    live.client.responses.delete(first.id)
    for call in (
        lambda: live.client.responses.retrieve(first.id),
        lambda: live.client.responses.delete(first.id),
        lambda: live.client.responses.create(model="tiny", input="x", previous_response_id=first.id),
    ):
        with pytest.raises(openai.APIStatusError) as refusal:
            call()
        assert refusal.value.status_code in (400, 404) and "not found" in refusal.value.message
    silent = live.client.responses.create(model="tiny", input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        live.client.responses.retrieve(silent.id)


def test_old_messages_make_room(live: Any) -> None:
    messages = [{"role": "user", "content": f"{number} to be " * 5} for number in range(29)]
    with pytest.raises(openai.BadRequestError) as refusal:
        live.client.responses.create(input=messages, **OPTIONS)
    assert refusal.value.code == "context_length_exceeded"
    answer = live.client.responses.create(input=messages, truncation="auto", **OPTIONS)
    context = live.served.engine.facts.context
    fitting = next(
        ids for start in range(29) if len(ids := live.served.tokenizer.encode_chat(messages[start:])) + 11 <= context
    )
    assert answer.usage.input_tokens == len(fitting), "no more messages are dropped than must be"
    with pytest.raises(openai.BadRequestError):
        live.client.responses.create(input="q" * 9_000, truncation="auto", **OPTIONS)


def test_the_store_is_bounded_and_private() -> None:
    store = Store(most=3, characters=7_000)
    answers = [Stored({"id": f"resp_{n}"}, [{"role": "user", "content": "x" * 100}]) for n in range(5)]
    for answer in answers:
        store.add("ann", answer)
    assert len(store) == 3 and store.find("ann", "resp_0") is None and store.find("ann", "resp_4") is answers[4]
    assert store.find("bob", "resp_4") is None and not store.remove("bob", "resp_4")
    store.add("ann", Stored({"id": "long"}, [{"role": "user", "content": "x" * 4_000}]))
    assert store.characters <= 7_000 and store.find("ann", "long") is not None
    store.add("ann", Stored({"id": "longer"}, [{"role": "user", "content": "x" * 9_000}]))
    assert len(store) == 0 and store.characters == 0
