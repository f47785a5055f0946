"""The guard and the watermark behind HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from bimo.generate.language_model import LanguageModel
from bimo.generate.watermark import Watermark
from bimo.serve.engines import Settings
from bimo.serve.guard import REFUSAL, Guard
from tests.serve.live import Live, ScriptedEngine, native_of, serving

Start = Callable[[str], tuple[Live, ScriptedEngine]]
ANSWER = "The address of Ann is ann.lee@mail.org, as everybody knows. "


@pytest.fixture
def guarded(scripted: Callable[..., Any], tmp_path: Path) -> Start:
    (tmp_path / "guard.yaml").write_text("words: [forbidden fruit, 违禁词]\n", encoding="utf-8")

    def start(text: str) -> tuple[Live, ScriptedEngine]:
        live, engine = scripted(text)
        live.served.shared.guard = Guard.read(tmp_path / "guard.yaml")
        return live, engine

    return start


def test_a_forbidden_question_is_refused_before_the_engine_sees_it(guarded: Start) -> None:
    live, engine = guarded("fine")
    for send in (
        lambda: live.client.completions.create(model="tiny", prompt="Eat the forbidden  FRUIT"),
        lambda: live.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "违禁词"}]),
        lambda: live.client.responses.create(model="tiny", input="违禁词是什么"),
        lambda: live.client.completions.create(model="tiny", prompt=live.served.tokenizer.encode("forbidden fruit")),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            send()
        assert caught.value.code == "content_filter" and REFUSAL in str(caught.value)
    assert not engine.asked
    assert live.served.shared.guard is not None and live.served.shared.guard.counts == {("input", "words"): 4}
    assert "bimo_guard_actions 4" in live.send("/metrics").body.decode()


def test_personal_data_are_redacted_on_both_sides(guarded: Start) -> None:
    live, engine = guarded(ANSWER * 3)
    found = live.client.completions.create(model="tiny", prompt="Mail bob.ray@mail.org: ", max_tokens=400)
    assert found.choices[0].text == (ANSWER * 3).replace("ann.lee@mail.org", "<EMAIL>")
    assert live.served.tokenizer.decode(engine.asked[-1][0]) == "Mail <EMAIL>: "
    parts = live.client.completions.create(model="tiny", prompt="Hm", max_tokens=400, stream=True)
    assert "".join(part.choices[0].text for part in parts) == found.choices[0].text


def test_an_answer_that_goes_wrong_ends_in_the_refusal(guarded: Start) -> None:
    live, _ = guarded("In the garden there was a tree with leaves. " * 5 + "And the forbidden fruit. " + "More. " * 50)
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Tell me"}], "max_tokens": 800}
    whole = live.client.chat.completions.create(**chat, logprobs=True).choices[0]  # type: ignore[call-overload]
    assert whole.finish_reason == "content_filter" and whole.message.content.endswith(REFUSAL)
    assert "forbidden" not in whole.message.content
    parts = [part.choices[0] for part in live.client.chat.completions.create(**chat, stream=True)]  # type: ignore[call-overload]
    assert "".join(part.delta.content or "" for part in parts) == whole.message.content
    assert parts[-1].finish_reason == "content_filter"
    response = live.client.responses.create(model="tiny", input="Tell me", max_output_tokens=800)
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"


def test_harmless_text_and_its_tokens_pass_a_guard_unchanged(guarded: Start) -> None:
    text = "It was a fine day, 天气很好, and nothing happened at all in the whole long afternoon. " * 3
    live, _ = guarded(text)
    asked = {"model": "tiny", "prompt": "So", "max_tokens": 600, "logprobs": 1}
    guarded_choice = live.client.completions.create(**asked).choices[0]  # type: ignore[call-overload]
    live.served.shared.guard = None
    assert guarded_choice == live.client.completions.create(**asked).choices[0]  # type: ignore[call-overload]
    assert guarded_choice.text == text


@pytest.fixture
def marked(model: LanguageModel) -> Iterator[Live]:
    with serving(model, native_of(model, Watermark("a secret of mine"))) as live:
        yield live


def test_everything_a_server_says_carries_its_watermark(marked: Live, live: Live) -> None:
    """By ids: the text of a random model is no UTF-8, and its bytes cannot be encoded again."""

    async def drawn(place: Live) -> list[int]:
        settings = Settings(max_tokens=150, seed=3, salt=b"")
        return [token.id async for token in place.served.engine.generate([5, 8], settings)]

    for place, found in ((marked, True), (live, False)):
        p_value = Watermark("a secret of mine").detect(asyncio.run(drawn(place))).p_value
        assert (p_value < 1e-3) == found, p_value
