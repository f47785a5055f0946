"""Bigram embeddings: a stock decoder whose layers add nothing predicts the counted pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bimo.batches.shards import Tokens, write_tokens
from bimo.train import initial
from bimo.train.initial import bigram_embeddings

VOCABULARY = 13


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    generator = np.random.default_rng(0)
    table = generator.dirichlet(np.full(VOCABULARY - 1, 0.3), VOCABULARY)
    ids = [1]
    for _ in range(4_000):
        ids.append(1 + int(generator.choice(VOCABULARY - 1, p=table[ids[-1]])))
    documents = [("a", 9, ids[:1_700]), ("b", 9, ids[1_700:])]
    return write_tokens(tmp_path, "t", documents, tokenizer_hash="", data_hash="", vocab_size=VOCABULARY, eos_id=0)


def predicted(embedding: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    width = embedding.shape[1]
    return (torch.nn.functional.rms_norm(embedding, (width,)) @ output.T).log_softmax(dim=-1)


def smoothed(tokens: Tokens) -> torch.Tensor:
    counts = np.zeros((VOCABULARY, VOCABULARY))
    ids = np.append(np.asarray(tokens.ids, dtype=np.int64), 0)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    unigrams = np.bincount(ids[:-1], minlength=VOCABULARY) + 0.5
    unigrams = unigrams / unigrams.sum()
    smoothing = initial.SMOOTHING
    return torch.from_numpy(np.log((counts + smoothing * unigrams) / (counts.sum(1, keepdims=True) + smoothing)))


def test_full_rank_gives_the_smoothed_pair_probabilities(tokens: Tokens) -> None:
    embedding, output = bigram_embeddings(tokens, VOCABULARY, VOCABULARY + 2, torch.Generator().manual_seed(0))
    assert torch.allclose(predicted(embedding, output).double(), smoothed(tokens), atol=1e-3)


def test_every_embedding_has_the_norm_that_rms_norm_keeps(tokens: Tokens) -> None:
    embedding, output = bigram_embeddings(tokens, VOCABULARY, 8, torch.Generator().manual_seed(0))
    assert embedding.shape == output.shape == (VOCABULARY, 8)
    assert torch.allclose(embedding.norm(dim=1), torch.full((VOCABULARY,), 8**0.5), atol=1e-4)


def test_a_wider_model_than_the_vocabulary_works_and_repeats(tokens: Tokens) -> None:
    first, second = (bigram_embeddings(tokens, VOCABULARY, 32, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.allclose(predicted(*first).double(), smoothed(tokens), atol=1e-3)


def test_low_rank_is_better_than_no_pairs(tokens: Tokens) -> None:
    truth = smoothed(tokens).exp()
    embedding, output = bigram_embeddings(tokens, VOCABULARY, 6, torch.Generator().manual_seed(0))
    unigrams = torch.from_numpy(np.bincount(np.asarray(tokens.ids), minlength=VOCABULARY) + 0.5).log().log_softmax(0)
    pairs = -(truth * predicted(embedding, output)).sum(1).mean()
    assert pairs < -(truth * unigrams).sum(1).mean() - 0.05


def test_a_long_stream_is_sampled_evenly(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = bigram_embeddings(tokens, VOCABULARY, VOCABULARY + 2, torch.Generator().manual_seed(0))
    monkeypatch.setattr(initial, "MOST_TOKENS", 3_000)
    monkeypatch.setattr(initial, "BLOCK_TOKENS", 100)
    sample = initial._sample(tokens)
    assert sample.size == 3_000 and sample.dtype == np.int64
    assert np.array_equal(sample[:100], tokens.ids[:100]) and np.array_equal(sample[-100:], tokens.ids[-100:])
    embedding, output = bigram_embeddings(tokens, VOCABULARY, VOCABULARY + 2, torch.Generator().manual_seed(0))
    assert not torch.equal(embedding, whole)
    assert (predicted(embedding, output).double() - smoothed(tokens)).abs().mean() < 0.2
