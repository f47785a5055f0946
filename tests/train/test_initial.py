"""Where training begins: a stock decoder whose layers add nothing predicts the counted pairs, some heads look back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bimo.batches.shards import Tokens, write_tokens
from bimo.models import llama
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


def attended(model: llama.Model, ids: torch.Tensor) -> torch.Tensor:
    """How much each head of the first layer attends to each distance back, (H, T), on average over positions."""
    layer, T = model.model.layers[0], ids.shape[1]
    x = layer.input_layernorm(model.model.embed_tokens(ids))
    angles = torch.arange(T)[None, None, :, None] * llama.rotary_frequencies(model.config, x.device)
    at, D = layer.self_attn, model.config.head_dim
    q, k = (part(x).view(1, T, -1, D).transpose(1, 2) for part in (at.q_proj, at.k_proj))
    q, k = (llama.rotate(norm(part), angles.cos(), angles.sin()) for norm, part in ((at.q_norm, q), (at.k_norm, k)))
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT * D**-0.5
    weights = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)[0]
    return torch.stack([weights.diagonal(-back, 1, 2)[:, 8:].mean(1) for back in range(T - 8)], 1)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 6), (8, 4), (4, 1)])
def test_some_heads_look_one_or_two_tokens_back_and_the_others_are_as_drawn(
    tokens: Tokens, family: str, heads: int, kv_heads: int
) -> None:
    config = llama.Config(
        vocab_size=VOCABULARY, hidden_size=32 * heads, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=32, max_position_embeddings=32,
        model_type=family, qk_norm=family == "qwen3", tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    embedding, _ = bigram_embeddings(tokens, VOCABULARY, 32 * heads, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(embedding)
    drawn = {name: parameter.clone() for name, parameter in model.named_parameters()}
    initial.look_back(model)
    found = attended(model, torch.randint(1, VOCABULARY, (1, 32), generator=torch.Generator().manual_seed(1)))
    local = [head * kv_heads // heads % 4 < 2 for head in range(heads)]
    for head in range(heads):
        if local[head]:
            assert int(found[head].argmax()) == 1 + head % 2 and found[head, :4].sum() > 0.5
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, drawn[name])]
    assert sorted(changed) == [f"model.layers.{i}.self_attn.{x}_proj.weight" for i in (0, 1) for x in "kq"]
    q, old = (x["model.layers.1.self_attn.q_proj.weight"] for x in (dict(model.named_parameters()), drawn))
    same = [torch.equal(*pair) for pair in zip(q.split(32), old.split(32), strict=True)]
    assert same == [not one for one in local]
