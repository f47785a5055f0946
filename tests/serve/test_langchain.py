"""LangChain's classes for OpenAI: chats, streams, tools, structured answers, completions and embeddings."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from bimo.generate.language_model import LanguageModel
from tests.serve.live import Live

pytestmark = pytest.mark.slow
QUESTION = "to be? 话说"


class Place(BaseModel):
    """Where."""

    city: Literal["北京", "Rom"]


class Weather(BaseModel):
    """The weather of a place."""

    place: Place
    wet: bool


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("langchain_openai", reason="no LangChain (pip install langchain-openai)")


def options(live: Live, **more: Any) -> dict[str, Any]:
    address = f"http://127.0.0.1:{live.port}/v1"
    return {"base_url": address, "api_key": "none", "model": "tiny", "temperature": 0, "max_retries": 0, **more}


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_chats(library: Any, live: Live, model: LanguageModel, responses: bool) -> None:
    chat = library.ChatOpenAI(**options(live, max_tokens=11, use_responses_api=responses))
    messages = [{"role": "system", "content": "简短"}, {"role": "user", "content": QUESTION}]
    expected = model.chat(messages, temperature=0, max_new_tokens=11)
    answer = chat.invoke([("system", "简短"), ("human", QUESTION)])
    assert answer.text == expected and answer.usage_metadata["output_tokens"] == 11
    assert answer.usage_metadata["input_tokens"] == len(model.chat_ids(messages))
    parts = list(chat.stream([("system", "简短"), ("human", QUESTION)]))
    assert "".join(part.text for part in parts) == expected and len(parts) > 2
    batch = chat.batch([[("system", "简短"), ("human", QUESTION)], "话"])
    alone = model.chat([{"role": "user", "content": "话"}], temperature=0, max_new_tokens=11)
    assert [answer.text for answer in batch] == [expected, alone]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_answers(library: Any, live: Live, method: str) -> None:
    """With schemas as pydantic writes them, which refer to their own parts."""
    chat = library.ChatOpenAI(**options(live, max_tokens=90)).with_structured_output(Weather, method=method)
    found = chat.invoke(QUESTION)
    assert isinstance(found, Weather) and found.place.city in ("北京", "Rom")


def test_a_tool_is_called_and_its_result_told(library: Any, live: Live) -> None:
    chat = library.ChatOpenAI(**options(live, max_tokens=90)).bind_tools([Weather], tool_choice="Weather")
    answer = chat.invoke(QUESTION)
    (call,) = answer.tool_calls
    assert call["name"] == "Weather" and Weather(**call["args"])
    parts = list(chat.stream(QUESTION))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    assert [(one["name"], one["args"]) for one in whole.tool_calls] == [("Weather", call["args"])]
    free = library.ChatOpenAI(**options(live, max_tokens=5))
    result = {"role": "tool", "tool_call_id": call["id"], "content": "7 degrees"}
    assert free.invoke([("human", QUESTION), answer, result]).text


def test_completions_and_embeddings(library: Any, live: Live, model: LanguageModel) -> None:
    complete = library.OpenAI(**options(live, max_tokens=11))
    expected = str(model.generate("To be", temperature=0, max_new_tokens=11)[0])
    assert complete.invoke("To be") == "".join(complete.stream("To be")) == expected
    several = complete.generate(["To be", "话说"])
    assert several.generations[0][0].text == expected
    assert several.llm_output["token_usage"]["completion_tokens"] == 22
    chosen = {name: value for name, value in options(live).items() if name != "temperature"}
    embed = library.OpenAIEmbeddings(**chosen, check_embedding_ctx_length=False)
    vectors = embed.embed_documents(["To be", "话说"])
    assert [len(vector) for vector in vectors] == [24, 24] and vectors[1] == pytest.approx(embed.embed_query("话说"))
