"""A start better than random: embeddings that already predict each token from the one before it, heads that look back.

The output of a fresh decoder whose layers add nothing is ``rms_norm(embedding[i]) @ output[j]``. Counted word pairs
are factorised into that form, so training begins where hundreds of steps would have brought it, in a stock model.

Shapes: V vocabulary, C width, K = C - 2 directions kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bimo.batches.shards import Tokens
from bimo.models import llama

LARGEST_VOCABULARY = 10_000  # the counts are a dense (V, V) matrix here
MOST_TOKENS, BLOCK_TOKENS = 10_000_000, 10_000
SMOOTHING = 300.0  # weight of the unigram distribution against the counts of a pair's first token
OVERSAMPLING = 16  # further directions of the randomised factorisation (Halko et al. 2011, §4.2)
UNIGRAM_SHARE, PAIR_SHARE = 0.05, 0.9  # of an embedding's squared norm; the rest evens the norms out
QUIETER, LOUDNESS = 0.2, 3.0  # of heads that look back: what is left of their random numbers, and what drowns them
FASTEST = 8  # a head's channels over this are the pairs, those that turn fastest, that say where it looks


def bigram_embeddings(tokens: Tokens, vocab_size: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Embedding and output matrix, each (V, C), whose product is nearly the log-probabilities of token pairs.

    log P(j|i) = log p(j) + log(1 + count(i, j) / (s p(j))) + a constant of i, for counts smoothed by s unigram
    counts. The second term is zero for unseen pairs; it is factorised with rows and columns weighted by the roots of
    their frequencies. Rows are rotated at random, so that no channel is special.
    """
    ids = _sample(tokens)
    first, second = ids[:-1], ids[1:]
    keys, counts = np.unique(first * vocab_size + second, return_counts=True)
    rows, columns = np.divmod(keys, vocab_size)
    frequency = np.bincount(first, minlength=vocab_size) + 0.5
    frequency /= frequency.sum()
    root = np.sqrt(frequency)
    pairs = torch.zeros(vocab_size, vocab_size)
    weighted = np.log1p(counts / (SMOOTHING * frequency[columns])) * root[rows] * root[columns]
    pairs[torch.from_numpy(rows), torch.from_numpy(columns)] = torch.from_numpy(weighted).float()
    left, right = _factors(pairs, min(width - 2, vocab_size), generator)  # (V, K) each
    scale = torch.from_numpy(root).float()[:, None]
    left, right = left / scale, right / scale
    left, right = (torch.nn.functional.pad(part, (0, width - 2 - part.shape[1])) for part in (left, right))

    stretch = (PAIR_SHARE * width) ** 0.5 / left.norm(dim=1).max()
    left, right = left * stretch, right / stretch
    constant = (UNIGRAM_SHARE * width) ** 0.5
    rest = (width - constant**2 - left.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
    unigram = torch.from_numpy(np.log(frequency)).float()[:, None] / constant
    embedding = torch.cat((torch.full_like(rest, constant), left, rest), dim=1)  # every row has norm sqrt(C)
    output = torch.cat((unigram, right, torch.zeros_like(rest)), dim=1)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return embedding @ rotation, output @ rotation


@torch.no_grad()
def look_back(model: llama.Model) -> None:
    """Let two key heads of every four, and the query heads that share them, begin by attending one or two tokens back.

    Embeddings have a direction in common, their mean. Queries and keys that are made of it alone are the same for every
    token, and only their rotation tells positions apart: a query that is turned back by the angles of some positions
    meets the key so many positions before it (compare Trockman & Kolter 2023, Mimetic initialization). Training is free
    to undo it. The other heads stay as they were drawn.
    """
    config, embedding = model.config, model.model.embed_tokens.weight
    D, group = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    turning = max(1, D // FASTEST)
    angles = llama.rotary_frequencies(config, embedding.device)[:turning]
    loudness = LOUDNESS if config.qk_norm else 1.0  # without the norm, the scores of heads grow with it
    norm = loudness * (D / config.hidden_size / turning) ** 0.5  # of `common`, so that heads get that root mean square
    common = torch.nn.functional.normalize(embedding.mean(0), dim=0) * norm

    def turned_back(distance: int) -> Tensor:
        head = torch.zeros(D)
        head[:turning], head[D // 2 : D // 2 + turning] = (distance * angles).cos(), -(distance * angles).sin()
        return torch.outer(head, common)

    for layer in model.model.layers:
        attention: Any = layer.self_attn
        for head, weight in enumerate(attention.k_proj.weight.split(D)):
            if head % 4 < 2:
                weight.mul_(QUIETER).add_(turned_back(0))
        for head, weight in enumerate(attention.q_proj.weight.split(D)):
            if head // group % 4 < 2:
                weight.mul_(QUIETER).add_(turned_back(1 + head % 2))


def _sample(tokens: Tokens) -> npt.NDArray[np.int64]:
    """The stream, or blocks spread evenly over it: enough to count pairs in, little enough for memory."""
    if tokens.count <= MOST_TOKENS:
        return np.append(tokens.ids, tokens.ids[0]).astype(np.int64)
    starts = np.linspace(0, tokens.count - BLOCK_TOKENS, MOST_TOKENS // BLOCK_TOKENS).astype(np.int64)
    return np.concatenate([tokens.ids[start : start + BLOCK_TOKENS] for start in starts]).astype(np.int64)


def _factors(matrix: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Randomised truncated SVD of ``matrix`` (V, V) as two factors of equal scale: left @ right.T ~ matrix."""
    size = matrix.shape[0]
    basis = torch.randn(size, min(size, rank + OVERSAMPLING), generator=generator)
    for _ in range(3):
        basis = torch.linalg.qr(matrix @ basis)[0]
        basis = torch.linalg.qr(matrix.T @ basis)[0]
    left, values, right = torch.linalg.svd(matrix @ basis, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, (basis @ right.T)[:, :rank] * root
