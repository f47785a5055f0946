"""How hard a text is: the bits per byte of an n-gram counted in a fixed amount of it, the scale of every forecast.

The model's bits per byte are forecast as a multiple of this (``train/predict.py``), so that English, Chinese and code
are told apart by the text itself and by no table of languages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimo.batches.shards import Tokens, encode_documents
from bimo.models.ngram import NGram
from bimo.text.document import Document
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.copying import find_copies

ORDER = 4
COUNTED_TOKENS = 400_000  # of training text: what most texts have, counted in under a second
BLOCK_TOKENS = 4_000
MOST_SCORED = 150_000  # tokens of held-out text
TRUSTED = 100_000  # tokens of training text that say how far copies are to be trusted


@dataclass(frozen=True)
class Anchor:
    """Measured facts of a text and its tokenizer that a forecast needs.

    Attributes:
        bits_per_byte: on the held-out text, of an n-gram of ``COUNTED_TOKENS`` training tokens, or of all where there
            are fewer.
        unique_tokens: of training text.
        bytes_per_token: of training text.
        vocab_size: of the tokenizer.
        counting_seconds: that this machine took to count one token of one order.
        variety: distinct n-grams a counted token, which say how much memory counting takes.
        copying: share of ``bits_per_byte`` that is left where what stands before may be copied (``train/copying.py``).
    """

    bits_per_byte: float
    unique_tokens: int
    bytes_per_token: float
    vocab_size: int
    counting_seconds: float = 0.0
    variety: float = 1.0
    copying: float = 1.0


def measure_anchor(train: Tokens, held_out: Iterable[Document], tokenizer: Tokenizer) -> Anchor:
    """Count n-grams in a sample of ``train`` and score the beginning of each document of ``held_out``.

    The held-out text gives the forecast three numbers: its scale, how hard a token is, and how much is copied. The last
    two have a small say in which shape is chosen; steps and weights do not see it.
    """
    ids, size = _held_out(held_out, tokenizer)
    counted = min(train.count, COUNTED_TOKENS)
    began = time.perf_counter()
    sample = _sample(train, counted)
    model = NGram.fit(sample, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, order=ORDER)
    scored = model.log_probs(ids)
    large = _bits(scored)
    counting = (time.perf_counter() - began) / (ORDER * (counted + len(ids)))
    variety = len(model.levels[-1].keys) / counted
    trust = find_copies(_sample(train, TRUSTED), tokenizer.eos_id).trust()
    copying = min(1.0, _bits(find_copies(ids, tokenizer.eos_id).log_probs(scored, trust)) / large)
    bits, bytes_per_token = large * len(ids) / size, train.bytes / train.count
    return Anchor(bits, train.count, bytes_per_token, tokenizer.vocab_size, counting, variety, copying)


def _bits(log_probs: NDArray[np.float64]) -> float:
    """Mean bits a token."""
    return float(-log_probs.mean() / math.log(2))


def _held_out(documents: Iterable[Document], tokenizer: Tokenizer) -> tuple[NDArray[np.int64], int]:
    """Token ids of the documents, an equal share of each, and the UTF-8 bytes that they stand for."""
    rows: list[Any] = []
    sizes: list[int] = []
    for _, size, ids in encode_documents(documents, tokenizer):
        rows.append(ids)
        sizes.append(size)
    share = min(1.0, MOST_SCORED / max(1, sum(map(len, rows))))
    parts = [row[: max(1, round(share * len(row)))] for row in rows]
    read = sum(size * len(part) / max(1, len(row)) for row, part, size in zip(rows, parts, sizes, strict=True))
    stream = [np.concatenate(([tokenizer.eos_id], np.asarray(part, dtype=np.int64))) for part in parts]
    return np.concatenate(stream).astype(np.int64), max(1, round(read))


def _sample(train: Tokens, count: int) -> NDArray[np.int64]:
    """About ``count`` tokens in blocks spread evenly over the stream, each block a document of its own."""
    if count >= train.count:
        return train.ids.astype(np.int64)
    blocks = max(1, count // BLOCK_TOKENS)
    length = count // blocks
    starts = np.linspace(0, train.count - length, blocks).astype(np.int64)
    parts = [np.concatenate(([train.eos_id], train.ids[start : start + length])) for start in starts]
    return np.concatenate(parts).astype(np.int64)
