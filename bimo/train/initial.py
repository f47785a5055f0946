"""A start better than random: embeddings that already predict each token from the one before it.

The output of a fresh decoder whose layers add nothing is ``rms_norm(embedding[i]) @ output[j]``. Counted word pairs
are factorised into that form, so training begins where hundreds of steps would have brought it, in a stock model.

Shapes: V vocabulary, C width, K = C - 2 directions kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bimo.batches.shards import Tokens

LARGEST_VOCABULARY = 10_000  # the counts are a dense (V, V) matrix here
MOST_TOKENS, BLOCK_TOKENS = 10_000_000, 10_000
SMOOTHING = 300.0  # weight of the unigram distribution against the counts of a pair's first token
OVERSAMPLING = 16  # further directions of the randomised factorisation (Halko et al. 2011, §4.2)
UNIGRAM_SHARE, PAIR_SHARE = 0.05, 0.9  # of an embedding's squared norm; the rest evens the norms out


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
