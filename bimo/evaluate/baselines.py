"""What a language model must beat: n-grams fitted to the same text, and general-purpose compressors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from bimo.batches.shards import Tokens
from bimo.evaluate.compression import compression_bits_per_byte
from bimo.evaluate.intervals import bits_per_byte, bits_per_byte_difference
from bimo.evaluate.likelihood import DocumentScore, score_documents_ngram
from bimo.text.document import Document
from bimo.tokenizer.tokenizer import Tokenizer

MOST_TOKENS = 10_000_000  # of a training stream that n-grams are fitted to: beyond, memory would pass 1 GB


def measure_baselines(
    scores: Sequence[DocumentScore],
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    train: Tokens,
    validation: Tokens,
) -> dict[str, Any]:
    """Bits per byte of simpler models on the documents of ``scores``, and how far the model is ahead of the n-gram.

    Returns:
        ``baselines``: name -> value, low, high; ``difference_to_ngram``: the model's bits per byte minus the
        n-gram's, with its paired 95% interval, or None where the training text is too long to count.
    """
    baselines: dict[str, Any] = {}
    difference = None
    if train.count <= MOST_TOKENS:
        order, others = score_documents_ngram(train.ids, validation.ids, documents, tokenizer)
        baselines[f"n-gram of order {order}"] = asdict(bits_per_byte(others))
        difference = asdict(bits_per_byte_difference(scores, others))
    for name, value in compression_bits_per_byte(documents).items():
        baselines[name] = {"value": value, "low": None, "high": None}
    return {"baselines": baselines, "difference_to_ngram": difference}
