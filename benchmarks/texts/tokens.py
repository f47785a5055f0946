"""Tokenising: bimo's writing of token shards and its training of tokenizers against the tokenizers library by itself.

Bimo learns merges with that library's ``BpeTrainer`` and encodes batches with tiktoken, to the same ids. What it adds
(checks, control tokens taken for text, the shard on the disk) counts, and so does its other pattern of words (Qwen2's
in place of GPT-2's). Run as ``python -m benchmarks.texts.tokens RESULT MEGABYTES REPEATS``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

from benchmarks.texts.cells import VOCABULARIES
from bimo import files
from bimo.batches.shards import encode_documents, write_tokens
from bimo.text.document import Document
from bimo.text.source import open_source
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer

CORPORA = ("wiki-en", "boolq-passages", "sotu")
CHECKED = 200  # documents whose ids are compared


def documents(megabytes: float) -> list[Document]:
    """So much English, about."""
    found, left = [], megabytes * 1e6
    for document in open_source(*CORPORA):
        found.append(document)
        left -= len(document.text.encode("utf-8"))
        if left < 0:
            break
    return found


def learn_with_library(texts: list[str], vocabulary: int) -> tokenizers.Tokenizer:
    """The library's own byte-level BPE, as its documentation trains it."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size=vocabulary, min_frequency=2, show_progress=False)
    return tokenizer


def write_shard(texts: list[Document], tokenizer: Tokenizer) -> int:
    """Encode and write, as training does; returns the number of tokens."""
    with tempfile.TemporaryDirectory() as temporary:
        tokens = write_tokens(
            Path(temporary), "train", encode_documents(texts, tokenizer),
            tokenizer_hash=tokenizer.hash, data_hash="", vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id,
        )  # fmt: skip
        return tokens.count - tokens.documents


def encode_with_library(texts: list[str], tokenizer: tokenizers.Tokenizer) -> int:
    """All ids, in memory; returns their number."""
    return sum(len(one.ids) for one in tokenizer.encode_batch(texts))


def measure(megabytes: float, repeats: int) -> dict[str, Any]:
    """Seconds of every run, the two in turn."""
    read = documents(megabytes)
    texts = [document.text for document in read]
    found: dict[str, Any] = {
        "bytes": sum(len(text.encode("utf-8")) for text in texts),
        "documents": len(texts),
        "version": tokenizers.__version__,
    }
    for vocabulary in VOCABULARIES:
        seconds: dict[str, list[float]] = defaultdict(list)
        for _ in range(repeats):
            tokenizer = _timed(seconds["train bimo"], train_tokenizer, texts, vocabulary)
            _timed(seconds["train library"], learn_with_library, texts, vocabulary)
        same = tokenizers.Tokenizer.from_str(tokenizer.definition.decode("utf-8"))
        few = texts[:CHECKED]
        assert tokenizer.encode_batch(few) == [one.ids for one in same.encode_batch(few)], "not the same ids"
        for _ in range(repeats):
            count = _timed(seconds["encode bimo"], write_shard, read, tokenizer)
            again = _timed(seconds["encode library"], encode_with_library, texts, same)
        assert count == again, "not the same number of ids"
        found[str(vocabulary)] = {"tokens": count, "seconds": dict(seconds)}
    return found


def _timed(seconds: list[float], work: Callable[..., Any], *given: Any) -> Any:
    began = time.perf_counter()
    result = work(*given)
    seconds.append(round(time.perf_counter() - began, 4))
    return result


if __name__ == "__main__":
    files.write_json(Path(sys.argv[1]), measure(float(sys.argv[2]), int(sys.argv[3])))
