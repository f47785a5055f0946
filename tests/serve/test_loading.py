"""Models from their folders: several on one server, each under its own name; and guessing, which changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import transformers

from bimo.errors import ModelError, UsageError
from bimo.serve import loading
from bimo.serve.loading import Computing, load_models, named, same_tokens
from bimo.serve.served import Models, Shared
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from tests.serve.conftest import TEXT
from tests.serve.live import Live, serving_all


@pytest.fixture(scope="module")
def smaller(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokens and other, fewer weights; it has a report."""
    smaller = tmp_path_factory.mktemp("serve") / "smaller"
    shutil.copytree(folder, smaller)
    torch.manual_seed(6)
    config = transformers.LlamaConfig.from_pretrained(folder)
    config.num_hidden_layers, config.intermediate_size = 1, 17
    transformers.LlamaForCausalLM(config).save_pretrained(smaller)
    (smaller / "report.html").write_text("<!DOCTYPE html><title>smaller</title>", encoding="utf-8")
    return smaller


def loaded(folders: dict[str, Path], **options: Any) -> Models:
    return load_models(folders, Computing(device="cpu", **options), Shared())


@pytest.fixture(scope="module")
def two(folder: Path, smaller: Path) -> Iterator[Live]:
    with serving_all(loaded({"tiny": folder, "小/one": smaller}, kv_memory="300kB")) as live:
        yield live


def text_of(live: Live, name: str, **options: Any) -> str:
    answer = live.client.completions.create(model=name, prompt="To be", max_tokens=20, temperature=0, **options)
    assert answer.model == name
    return answer.choices[0].text


def test_each_request_is_answered_by_the_model_it_names(two: Live, folder: Path, smaller: Path) -> None:
    assert [model.id for model in two.client.models.list()] == ["tiny", "小/one"]
    first, second = text_of(two, "tiny"), text_of(two, "小/one")
    assert first != second
    with serving_all(loaded({"alone": smaller})) as alone:
        assert text_of(alone, "alone") == second, "what a model says does not depend on the others"
    for name in ("tiny", "小/one"):
        chat = two.client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "话说"}], max_tokens=5, temperature=0
        )
        assert chat.model == name
        response = two.client.responses.create(model=name, input="话说", max_output_tokens=5)
        assert response.model == name and two.client.models.retrieve(name).id == name
    bodies = [{"model": name, "input": "To be"} for name in ("tiny", "小/one")]
    one, other = (two.send("/v1/embeddings", body).json["data"][0]["embedding"] for body in bodies)
    assert len(one) == len(other) and one != other


def test_a_name_that_is_not_there(two: Live) -> None:
    with pytest.raises(openai.NotFoundError, match="This server has 'tiny', '小/one'"):
        two.client.completions.create(model="other", prompt="x")
    assert two.send("/tokenize", {"prompt": "To be"}).status == 200, "the first is meant where none is named"
    assert two.send("/tokenize", {"prompt": "To be", "model": "nope"}).status == 404


def test_each_model_has_its_own_report(two: Live) -> None:
    one, other = two.send("/v1/models").json["data"]
    assert one["report"] is None and other["report"] == "run/%E5%B0%8F/one/report.html"
    answer = two.send(f"/{other['report']}")
    assert answer.status == 200 and b"smaller" in answer.body
    assert two.send("/run/tiny/report.html").status == 404


def test_their_numbers_are_told_apart(two: Live) -> None:
    def counted() -> dict[str, float]:
        lines = two.send("/metrics").body.decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    before = counted()
    prompt = "话说天下大势，分久必合，合久必分。" * 2
    ids = two.send("/tokenize", {"prompt": prompt}).json["count"]
    for _ in range(2):
        body = {"model": "小/one", "prompt": prompt, "max_tokens": 9, "temperature": 0}
        assert two.send("/v1/completions", body).json["usage"]["completion_tokens"] == 9
    after = counted()

    def rise(name: str, model: str, **labels: str) -> float:
        shown = ",".join(f'{key}="{value}"' for key, value in {"model": model, **labels}.items())
        return after[f"{name}{{{shown}}}"] - before[f"{name}{{{shown}}}"]

    assert rise("bimo_engine_tokens_total", "小/one", kind="prompt") == 2 * ids
    assert rise("bimo_engine_tokens_total", "小/one", kind="cached") == ids // 32 * 32
    assert rise("bimo_engine_tokens_total", "小/one", kind="drawn") == 18
    assert rise("bimo_engine_steps_total", "小/one") > 0 and rise("bimo_engine_busy_seconds_total", "小/one") > 0
    assert rise("bimo_engine_tokens_total", "tiny", kind="drawn") == rise("bimo_engine_steps_total", "tiny") == 0
    states = [after[f'bimo_engine_pages{{model="小/one",state="{state}"}}'] for state in ("used", "cached", "free")]
    engine = next(served.engine for served in two.models if served.name == "小/one")
    stats = engine.stats()
    assert stats is not None and sum(states) == stats.pages > 0 and states[0] == 0 < states[1]


REQUESTS: list[dict[str, Any]] = [
    {"prompt": "to be or not to be or not to be or", "temperature": 0, "max_tokens": 60},
    {"prompt": ["话说天下", "To be"], "temperature": 0.7, "seed": 3, "n": 3, "logprobs": 2, "max_tokens": 40},
    {"prompt": "that is", "temperature": 1.3, "top_p": 0.9, "seed": 11, "frequency_penalty": 0.5, "max_tokens": 50},
    {"prompt": "To be", "temperature": 0, "stop": ["that"], "echo": True, "logprobs": 1, "max_tokens": 30},
]


@pytest.mark.parametrize("guessing", ["before", "smaller", "itself"])
def test_guessing_changes_no_answer(folder: Path, smaller: Path, guessing: str) -> None:
    draft = {"before": None, "smaller": smaller, "itself": folder}[guessing]
    models = loaded({"tiny": folder}, speculate=0), loaded({"tiny": folder}, speculate=3, draft=draft)
    with serving_all(models[0]) as plain, serving_all(models[1]) as guessed:
        for request in REQUESTS:
            answers = [live.send("/v1/completions", {"model": "tiny", **request}).json for live in (plain, guessed)]
            assert answers[0]["choices"] == answers[1]["choices"]
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        chat = {
            "messages": [{"role": "user", "content": "a?"}], "temperature": 0.8, "seed": 5, "max_tokens": 25,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        }  # fmt: skip
        streams = [live.events("/v1/chat/completions", chat) for live in (plain, guessed)]
        assert [event["choices"] for event in streams[0]] == [event["choices"] for event in streams[1]]
        before, after = (live.served.engine.stats() for live in (plain, guessed))
    assert before is not None and after is not None
    assert after.accepted > (0 if guessing != "smaller" else -1) and after.drafted >= after.accepted
    assert after.new_tokens == before.new_tokens and after.steps <= before.steps
    assert guessing == "smaller" or after.steps < before.steps


def test_what_cannot_guess(folder: Path, smaller: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    tokenizer = train_tokenizer([TEXT[::-1]], 300)
    assert not same_tokens(Tokenizer.load(folder), tokenizer) and same_tokens(tokenizer, tokenizer)
    tokenizer.save(other)
    with pytest.raises(UsageError, match="cannot guess for this model.*other tokens"):
        loaded({"tiny": folder}, draft=other)
    with pytest.raises(UsageError, match="--draft is wrong.*got 2 models"):
        loaded({"tiny": folder, "smaller": smaller}, draft=smaller)
    with pytest.raises(ModelError, match="There is no model"):
        loaded({"tiny": folder}, draft=tmp_path / "none")
    for wrong in ({"speculate": -1}, {"speculate": 33}, {"kv_memory": "much"}):
        with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')} is wrong"):
            Computing(**wrong)  # type: ignore[arg-type]


def test_names(folder: Path, smaller: Path, tmp_path: Path) -> None:
    assert named([folder, smaller], []) == {"tiny": folder, "smaller": smaller}
    assert named([folder, folder], ["a", "b"]) == {"a": folder, "b": folder}
    with pytest.raises(UsageError, match="the same name.*got tiny.*--name one --name other"):
        named([folder, folder], [])
    for wrong in ("", "x" * 257):
        with pytest.raises(UsageError, match="name is wrong.*1 to 256 characters"):
            named([folder], [wrong])
    with pytest.raises(UsageError, match="one name for each of 2 models; got 1"):
        named([folder, smaller], ["a"])
    with pytest.raises(ModelError, match="no such folder"):
        named([folder, tmp_path / "none"], [])


def test_nothing_is_read_of_models_that_do_not_fit(
    folder: Path, smaller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "free_memory", lambda device: 4e6)
    monkeypatch.setattr(loading, "load", lambda *args, **options: pytest.fail("it was read"))
    with pytest.raises(ModelError, match="too large for this machine's memory.*tiny: .* smaller: "):
        loaded({"tiny": folder, "smaller": smaller}, kv_memory="2MB")
    with pytest.raises(ModelError, match="too large"):
        loaded({"tiny": folder}, kv_memory="3.5MB")


def test_less_memory_is_a_shorter_context(folder: Path) -> None:
    models = loaded({"tiny": folder}, kv_memory="200kB")
    (served,) = models
    assert served.engine.facts.context == 6 * 32
    with serving_all(models) as live:
        answer = live.send("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 599})
        assert answer.status == 400 and f"length is {served.engine.facts.context} tokens" in answer.error["message"]
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 600
