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

ORDER = 4
COUNTED_TOKENS = 400_000  # of training text: what most texts have, counted in under a second
BLOCK_TOKENS = 4_000
MOST_SCORED = 150_000  # tokens of held-out text
SMALLER = 4  # the second n-gram, which tells how fast this text is learned, sees one token in so many
FEWEST_COUNTED = 2_000  # below, the two n-grams say nothing about a third


@dataclass(frozen=True)
class Anchor:
    """Measured facts of a text and its tokenizer that a forecast needs.

    Attributes:
        bits_per_byte: on the held-out text, of an n-gram of ``COUNTED_TOKENS`` training tokens, extrapolated where
            the text is shorter.
        slope: by which power of the counted tokens the n-gram's bits per byte fall.
        unique_tokens: of training text.
        bytes_per_token: of training text.
        vocab_size: of the tokenizer.
        counting_seconds: that this machine took to count one token of one order.
        variety: distinct n-grams a counted token, which say how much memory counting takes.
    """

    bits_per_byte: float
    slope: float
    unique_tokens: int
    bytes_per_token: float
    vocab_size: int
    counting_seconds: float = 0.0
    variety: float = 1.0


def measure_anchor(train: Tokens, held_out: Iterable[Document], tokenizer: Tokenizer) -> Anchor:
    """Count n-grams in a sample of ``train`` and score the beginning of each document of ``held_out``.

    The held-out text gives the scale of the forecast and nothing else: shape, steps and weights do not see it.
    """
    ids, size = _held_out(held_out, tokenizer)
    counted = min(train.count, COUNTED_TOKENS)
    began = time.perf_counter()
    model = _count(_sample(train, counted), tokenizer)
    large = _bits(model, ids)
    counting = (time.perf_counter() - began) / (ORDER * (counted + len(ids)))
    variety = len(model.levels[-1].keys) / counted
    small = _bits(_count(_sample(train, max(1, counted // SMALLER)), tokenizer), ids)
    slope = max(0.0, math.log(small / large) / math.log(SMALLER)) if counted >= FEWEST_COUNTED else 0.0
    missing = (COUNTED_TOKENS / counted) ** -slope if counted >= FEWEST_COUNTED else 1.0
    bits = large * len(ids) / size * missing
    return Anchor(bits, slope, train.count, train.bytes / train.count, tokenizer.vocab_size, counting, variety)


def _count(sample: NDArray[np.int64], tokenizer: Tokenizer) -> NGram:
    return NGram.fit(sample, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, order=ORDER)


def _bits(model: NGram, ids: NDArray[np.int64]) -> float:
    """Mean bits a token of the held-out ids."""
    return float(-model.log_probs(ids).mean() / math.log(2))


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
