"""POST /v1/classifications and the vectors of encoders: classifiers beside language models on one server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from transformers import pipeline

from bimo.errors import ModelError
from bimo.models import save_model
from bimo.models.classifier import load_text_classifier
from bimo.models.heads import new_classifier
from bimo.models.sentences import load_sentence_encoder
from bimo.serve.answer_schemas import Classes, ModelFacts
from bimo.serve.engines.texts import TextEngine
from bimo.serve.limits import Limits
from bimo.serve.loading import Computing, load_models
from bimo.serve.served import Shared
from bimo.tokenizer.tokenizer import Tokenizer
from tests.models.bert_folder import bert_folder
from tests.serve.live import Live, serving_all

LABELS = ("好评", "bad", "neither")
TEXTS = ["the cat", "a film is good 好", "the tank, the mat", "very bad"]
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings")


def classifier(base: Path, out: Path) -> Path:
    """A run with a fresh head, whose weights say something."""
    model = new_classifier(base, LABELS, generator=torch.Generator().manual_seed(3), device="cpu")
    torch.nn.init.normal_(model.head.weight, std=0.7, generator=torch.Generator().manual_seed(4))
    save_model(model, out)
    Tokenizer.load(base).save(out)
    return out


@pytest.fixture(scope="module")
def folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("runs")
    bert = bert_folder(made / "bert")
    return {
        "sentiment": classifier(bert, made / "sentiment"),
        "tiny": folder,
        "文类": classifier(folder, made / "decoder"),
        "minilm": bert,
    }


@pytest.fixture(scope="module")
def several(folders: dict[str, Path]) -> Iterator[Live]:
    with serving_all(load_models(folders, Computing(device="cpu", kv_memory="300kB"), Shared())) as live:
        yield live


@pytest.mark.parametrize("name", ["sentiment", "文类"])
@pytest.mark.parametrize("path", ["/v1/classifications", "/classify"])
def test_texts_get_their_class(several: Live, folders: dict[str, Path], name: str, path: str) -> None:
    answer = several.send(path, {"model": name, "input": TEXTS}).json
    Classes.model_validate(answer)
    assert answer["model"] == name and answer["object"] == "list"
    model = load_text_classifier(folders[name])
    expected = model.probabilities(TEXTS)
    around = sum(map(len, model.tokenizer.around))
    tokens = sum(len(model.tokenizer.encode(text)) + around for text in TEXTS)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == tokens
    for place, (row, wanted) in enumerate(zip(answer["data"], expected, strict=True)):
        assert row["index"] == place and row["num_classes"] == 3 and row["label"] == LABELS[int(wanted.argmax())]
        assert row["probs"] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert row["scores"] == dict(zip(LABELS, row["probs"], strict=True))
    assert len({row["label"] for row in answer["data"]}) > 1 or np.ptp(expected, axis=0).max() > 0.01
    if name == "sentiment":
        found = pipeline("text-classification", str(folders[name]), top_k=None)(TEXTS)
        for row, stock in zip(answer["data"], found, strict=True):
            assert row["scores"] == pytest.approx({one["label"]: one["score"] for one in stock}, abs=1e-5)


def test_one_text_and_ids(several: Live) -> None:
    one = several.send("/v1/classifications", {"input": TEXTS[1]}).json  # the first classifier is meant
    assert one["model"] == "sentiment" and len(one["data"]) == 1
    ids = several.send("/tokenize", {"model": "sentiment", "prompt": TEXTS[1]}).json["tokens"]
    same = several.send("/v1/classifications", {"model": "sentiment", "input": ids}).json
    assert same["data"] == one["data"] and same["usage"] == one["usage"]


def test_all_models_are_listed_and_do_what_they_are_for(several: Live) -> None:
    listed = several.send("/v1/models").json["data"]
    for one in listed:
        ModelFacts.model_validate(one)
    assert [(one["id"], one["purpose"]) for one in listed] == [
        ("sentiment", "classes"), ("tiny", "text"), ("文类", "classes"), ("minilm", "vectors"),
    ]  # fmt: skip
    assert listed[0]["labels"] == list(LABELS) and listed[1]["labels"] == []
    assert several.client.models.retrieve("文类").id == "文类"
    body: dict[str, Any] = {"prompt": "To be", "max_tokens": 3}
    assert several.send("/v1/completions", {"model": "tiny", **body}).status == 200
    bodies: list[dict[str, Any]] = [
        body,
        {"messages": [{"role": "user", "content": "x"}]},
        {"input": "x"},
        {"input": "x"},
    ]
    for route, given in zip(ROUTES, bodies, strict=True):
        answer = several.send(route, {"model": "sentiment", **given})
        assert answer.status == 400 and answer.error["code"] == "unsupported_endpoint", route
        assert answer.error["param"] == "model" and "/v1/classifications" in answer.error["message"]
    refused = several.send("/v1/classifications", {"model": "tiny", "input": "x"})
    assert refused.status == 400 and "writes text: use /v1/completions" in refused.error["message"]
    assert several.send("/v1/classifications", {"model": "nope", "input": "x"}).status == 404
    with pytest.raises(openai.BadRequestError, match="gives vectors of texts: use /v1/embeddings"):
        several.client.completions.create(model="minilm", prompt="x")


def test_an_encoder_gives_vectors(several: Live, folders: dict[str, Path]) -> None:
    answer = several.client.embeddings.create(model="minilm", input=TEXTS)
    expected = load_sentence_encoder(folders["minilm"]).encode(TEXTS)
    assert np.array([row.embedding for row in answer.data]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "empty_array"),
        ({"input": ["x", ""]}, "input[1]", "invalid_value"),
        ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
        ({"input": [[1, 10**6]]}, "input", "invalid_value"),
        ({"input": "the cat " * 900}, "input", "context_length_exceeded"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": "x", "activation": True}, "activation", "unknown_parameter"),
        ({}, "input", "missing_required_parameter"),
    ],
)
def test_what_is_refused(several: Live, body: dict[str, Any], param: str, code: str) -> None:
    answer = several.send("/v1/classifications", {"model": "sentiment", **body})
    assert answer.status == 400 and (answer.error["param"], answer.error["code"]) == (param, code)


@pytest.mark.parametrize("name", ["sentiment", "文类"])
def test_what_is_too_long_is_cut_where_that_is_asked_for(several: Live, folders: dict[str, Path], name: str) -> None:
    text = "the cat is very good " * 400
    body = {"model": name, "input": text, "truncate_prompt_tokens": -1}
    answer = several.send("/v1/classifications", body).json
    model = load_text_classifier(folders[name])
    assert answer["data"][0]["probs"] == pytest.approx(model.probabilities([text])[0].tolist(), abs=1e-5)
    assert answer["usage"]["prompt_tokens"] == model.longest


def test_limits_and_counters(folders: dict[str, Path]) -> None:
    shared = Shared(Limits(body_bytes=9_000, tokens_per_minute=3))
    with serving_all(load_models({"sentiment": folders["sentiment"]}, Computing(device="cpu"), shared)) as live:
        assert live.send("/v1/classifications", {"input": ["x" * 10_000]}).status == 413
        tokens = live.send("/v1/classifications", {"input": TEXTS}).json["usage"]["prompt_tokens"]
        assert live.send("/v1/classifications", {"input": TEXTS}).status == 429
        lines = live.send("/metrics").body.decode().splitlines()
        assert f'bimo_tokens_total{{kind="prompt"}} {tokens}' in lines
        assert 'bimo_requests_total{route="/v1/classifications",status="200"} 1' in lines
        assert live.send("/health").json == {"status": "ok"}


def test_requests_are_batched_and_the_server_stays_awake(folders: dict[str, Path]) -> None:
    models = load_models({"sentiment": folders["sentiment"]}, Computing(device="cpu"), Shared())
    engine = models.find(None, "classes").engine
    assert isinstance(engine, TextEngine)
    compute, sizes = engine._compute, list[int]()

    def slow(texts: Any) -> Any:
        sizes.append(len(texts))
        time.sleep(0.2)
        return compute(texts)

    engine._compute = slow
    with serving_all(models) as live, concurrent.futures.ThreadPoolExecutor(9) as pool:
        bodies = [{"input": [f"the cat {number}"]} for number in range(8)]
        asked = [pool.submit(live.send, "/v1/classifications", body) for body in bodies]
        assert live.send("/health").status == 200
        assert all(one.result().status == 200 for one in asked)
        assert sum(sizes) == 8 and max(sizes) > 1, "what waits is computed together"


def test_a_failure_is_answered_and_what_comes_after_is_computed(folders: dict[str, Path]) -> None:
    models = load_models({"sentiment": folders["sentiment"]}, Computing(device="cpu"), Shared())
    engine = models.find(None, "classes").engine
    assert isinstance(engine, TextEngine)
    compute, failures = engine._compute, [RuntimeError("/secret/path: out of memory")]

    def failing(texts: Any) -> Any:
        if failures:
            raise failures.pop()
        return compute(texts)

    engine._compute = failing
    with serving_all(models) as live:
        answer = live.send("/v1/classifications", {"input": "the cat"})
        assert answer.status == 500 and "secret" not in answer.error["message"]
        assert live.send("/v1/classifications", {"input": "the cat"}).status == 200
    assert not engine.alive()
    with pytest.raises(ModelError, match="has stopped"):
        asyncio.run(engine.numbers([1]))
