"""POST /v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from bimo.generate.language_model import LanguageModel

TEXTS = ["To be", "话说天下大势，分久必合"]


def test_embeddings_are_the_mean_hidden_states(live: Any, model: LanguageModel) -> None:
    ids = [model.tokenizer.encode(text) for text in TEXTS]
    with torch.inference_mode():
        hidden = [model.model.hidden(torch.tensor([row]))[0].mean(0) for row in ids]
    expected = [torch.nn.functional.normalize(row, dim=0).tolist() for row in hidden]
    for given in (TEXTS, ids):
        answer = live.client.embeddings.create(model="tiny", input=given, encoding_format="float")
        assert [row.index for row in answer.data] == [0, 1] and answer.usage.prompt_tokens == sum(map(len, ids))
        for row, wanted in zip(answer.data, expected, strict=True):
            assert row.embedding == pytest.approx(wanted, abs=1e-5)
            assert math.hypot(*row.embedding) == pytest.approx(1)
    default = live.client.embeddings.create(model="tiny", input=TEXTS[0])  # the client asks for base64
    assert default.data[0].embedding == pytest.approx(expected[0], abs=1e-6)


def test_tokens_there_and_back(live: Any, model: LanguageModel) -> None:
    text = "To be 话说 😀"
    answer = live.send("/tokenize", {"model": "tiny", "prompt": text, "return_token_strs": True}).json
    assert answer["tokens"] == model.tokenizer.encode(text) and answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 600 and len(answer["token_strs"]) == answer["count"]
    assert live.send("/detokenize", {"tokens": answer["tokens"]}).json == {"prompt": text}
    start = list(model.conventions.start)
    assert live.send("/tokenize", {"prompt": ""}).json["tokens"] == start
    assert live.send("/tokenize", {"prompt": "", "add_special_tokens": False}).json["tokens"] == []


def test_an_engine_without_embeddings(scripted: Any) -> None:
    live, engine = scripted("x")
    engine.facts = dataclasses.replace(engine.facts, constrains=False, lacks=frozenset({"embeddings"}))
    answer = live.send("/v1/embeddings", {"model": "tiny", "input": "To be"})
    assert answer.status == 400 and answer.error["code"] == "unsupported_endpoint"
    assert live.send("/v1/models").json["data"][0]["lacks"] == ["embeddings", "json_schema"]
