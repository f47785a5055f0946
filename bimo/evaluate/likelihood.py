"""The likelihood that a model gives to whole documents: every token scored exactly once, with a long enough context.

Shapes: B windows of a batch, T tokens of the longest of them, C width, V vocabulary, M scored labels of a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bimo.batches.shards import encode_documents
from bimo.errors import DataError, ModelError
from bimo.models.ngram import Tokens, score_best

if TYPE_CHECKING:
    from bimo.text.document import Document
    from bimo.tokenizer.tokenizer import Tokenizer

LOGITS_AT_ONCE = 2**20  # numbers of one block of logits, 4 MiB in float32: more take memory, and no less time
ROWS_AT_ONCE = 8  # windows that are computed together: more take memory, and no less time
FEWEST_ROWS = 128  # of a block: of a large vocabulary, the output matrix is read again for each
BATCHES_SORTED_TOGETHER = 16  # windows of similar length share a batch, so that little is padded


class LanguageModel(Protocol):
    """What scoring needs of a model; every module of bimo.models with a ``Model`` has it."""

    training: bool

    def train(self, mode: bool = True) -> object: ...
    def hidden(self, input_ids: torch.Tensor) -> torch.Tensor: ...
    def logits(self, hidden: torch.Tensor) -> torch.Tensor: ...

    @property
    def output_weight(self) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """What one document cost: its tokens and the token that ends it."""

    id: str
    bytes: int  # UTF-8 bytes of the source text
    label_nats: NDArray[np.float32]  # (tokens,)

    @property
    def tokens(self) -> int:
        """Number of scored labels, the end of the document included."""
        return len(self.label_nats)

    @property
    def nats(self) -> float:
        """Negative natural log-likelihood of the whole document."""
        return float(self.label_nats.sum(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class _Window:
    tokens: NDArray[np.int64]  # (T+1,) inputs are all but the last, labels all but the first
    nats: NDArray[np.float32]  # a view into the document's label_nats: the last labels, those not scored before


def score_documents(
    model: LanguageModel,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    stride: int | None = None,
    batch_size: int = ROWS_AT_ONCE,
    progress: Callable[[int], object] | None = None,
) -> tuple[DocumentScore, ...]:
    """Score each document on its own, from its first token to the token that ends it.

    A document longer than the context is read in overlapping windows: after the first window, every scored token has
    at least ``context_length - stride`` tokens before it.

    Args:
        context_length: tokens the model reads at once.
        stride: how far the window moves; half the context by default.
        batch_size: windows computed together; it changes speed and memory, not the result.
        progress: called with the number of newly scored tokens.

    Raises:
        DataError: there is no text at all.
        ModelError: the model's likelihood of a document is not a number.
    """
    stride = stride or max(1, context_length // 2)
    assert 1 <= stride <= context_length, "a longer stride would leave tokens out"
    scores: list[DocumentScore] = []

    def windows() -> Iterator[_Window]:
        for name, size, ids in encode_documents(documents, tokenizer):
            tokens = np.array([tokenizer.eos_id, *ids, tokenizer.eos_id], dtype=np.int64)
            score = DocumentScore(name, size, np.full(len(tokens) - 1, np.nan, dtype=np.float32))
            scores.append(score)
            yield from _windows(tokens, score.label_nats, context_length, stride)

    with evaluating(model):
        for batch in _batches(windows(), batch_size):
            _score(model, batch, tokenizer.eos_id)
            if progress:
                progress(sum(len(window.nats) for window in batch))
    return _checked(scores)


def score_documents_ngram(
    train: Tokens, validation: Tokens, documents: Iterable[Document], tokenizer: Tokenizer
) -> tuple[int, tuple[DocumentScore, ...]]:
    """Score each document with the n-gram baseline: the same labels as :func:`score_documents`.

    Args:
        train: stream of documents that n-grams are counted in.
        validation: stream that chooses their order.

    Returns:
        The order, and the scores.

    Raises:
        DataError: there is no text at all.
    """
    encoded = [(name, size, [tokenizer.eos_id, *ids]) for name, size, ids in encode_documents(documents, tokenizer)]
    if not encoded:
        return 0, _checked([])
    stream = np.concatenate([np.asarray(ids) for _, _, ids in encoded])
    order, log_probs = score_best(train, validation, stream, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id)
    nats = np.split((-log_probs).astype(np.float32), np.cumsum([len(ids) for _, _, ids in encoded])[:-1])
    return order, _checked([DocumentScore(*one[:2], part) for one, part in zip(encoded, nats, strict=True)])


def _windows(
    tokens: NDArray[np.int64], nats: NDArray[np.float32], context_length: int, stride: int
) -> Iterator[_Window]:
    begin = done = 0
    while done < len(nats):
        end = min(begin + context_length, len(nats))
        yield _Window(tokens[begin : end + 1], nats[done:end])
        done = end
        begin = min(begin + stride, max(0, len(nats) - context_length))  # the last window is full too


def _batches(windows: Iterator[_Window], batch_size: int) -> Iterator[list[_Window]]:
    while group := list(itertools.islice(windows, batch_size * BATCHES_SORTED_TOGETHER)):
        group.sort(key=lambda window: -len(window.tokens))
        for first in range(0, len(group), batch_size):
            yield group[first : first + batch_size]


def _score(model: LanguageModel, batch: list[_Window], padding: int) -> None:
    """Fill the windows' ``nats``. Padding lies to the right, where a causal model's earlier outputs cannot see it."""
    length = max(len(window.tokens) for window in batch)
    tokens = np.full((len(batch), length), padding, dtype=np.int64)
    scored = np.zeros((len(batch), length - 1), dtype=bool)
    for row, window in enumerate(batch):
        tokens[row, : len(window.tokens)] = window.tokens
        scored[row, len(window.tokens) - 1 - len(window.nats) : len(window.tokens) - 1] = True
    device = model.output_weight.device
    inputs, mask = torch.from_numpy(tokens).to(device), torch.from_numpy(scored).to(device)
    nats = _cross_entropy(model, model.hidden(inputs[:, :-1])[mask], inputs[:, 1:][mask]).cpu().numpy()
    for window in batch:
        window.nats[:], nats = np.split(nats, [len(window.nats)])


def _cross_entropy(model: LanguageModel, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Nats of each label (M,) given its hidden state (M, C)."""
    parts = [F.cross_entropy(logits, target, reduction="none") for logits, target in logits_of(model, hidden, labels)]
    return torch.cat(parts)


def logits_of(
    model: LanguageModel, hidden: torch.Tensor, labels: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits (rows, V) of hidden states (M, C), with their labels (rows,), a bounded number at a time.

    They are float32 whatever the model computes in: in bfloat16 they would be rounded to about 1%.
    """
    rows = max(FEWEST_ROWS, LOGITS_AT_ONCE // model.output_weight.shape[0])
    for part, target in zip(hidden.split(rows), labels.split(rows), strict=True):
        yield model.logits(part[None].float())[0], target


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """No dropout and no gradients inside; the model's mode is put back."""
    training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _checked(scores: list[DocumentScore]) -> tuple[DocumentScore, ...]:
    if not any(score.bytes for score in scores):
        raise DataError("There is no text to score.", expected="documents with text", got="0 bytes")
    for score in scores:
        if not np.isfinite(score.label_nats).all():
            problem = f"The model gives document {score.id} no likelihood."
            raise ModelError(problem, expected="finite log-probabilities", got="NaN or infinity in them")
    return tuple(scores)
