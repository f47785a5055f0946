"""How likely a model finds given continuations of given contexts, each context computed once for all that follow it.

A row holds a context and behind it, side by side, all its continuations: each sees the context and itself, and its
positions begin where the context ends. So one forward pass gives all choices of many questions.

Shapes: B rows of a batch, T tokens of the longest of them, M scored tokens of the batch, V vocabulary, K, S, D as in
``bimo.models.attention``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bimo.errors import ModelError
from bimo.evaluate.likelihood import evaluating, logits_of

if TYPE_CHECKING:
    from bimo.generate.language_model import LanguageModel
    from bimo.models import Model

BATCH_TOKENS = 2_048  # of a batch, padding included
GROUPS_SORTED_TOGETHER = 256  # rows of similar length share a batch, so that little is padded

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Group:
    """A context and its continuations; none is empty."""

    context: Ids
    continuations: Sequence[Ids]


class Score(NamedTuple):
    """Of one continuation.

    Attributes:
        logprob: natural log-probability of all its tokens, given the context.
        greedy: whether each of its tokens is the likeliest one.
        tokens: how many it has.
    """

    logprob: float
    greedy: bool
    tokens: int


def encode_pair(
    model: LanguageModel, context: str, continuation: str, *, rendered: bool = False
) -> tuple[list[int], list[int]]:
    """The ids of a context and of what follows it, the end of the context cut where the text's own tokens end.

    Spaces at the end of the context go to the continuation, and both are encoded as one text, as in lm-eval. A context
    without text is the token that begins a document.

    Args:
        rendered: the context is what a chat template gave, which writes itself what texts begin with.
    """
    conventions, tokenizer = model.conventions, model.tokenizer
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    if not bare:
        return list(conventions.start), tokenizer.encode(continuation)
    before, whole = tokenizer.encode(bare), tokenizer.encode(bare + continuation)
    after = whole[len(before) :] or tokenizer.encode(continuation)
    return [*(() if rendered else conventions.prefix), *before], after


def score_groups(
    model: Model, groups: Sequence[Group], *, progress: Callable[[int], object] | None = None
) -> Iterator[tuple[int, list[Score]]]:
    """Score the continuations of every group; they come in another order, each with its number.

    A context that does not fit the model is cut at its beginning, for each continuation as far as it needs.

    Args:
        progress: called with the number of newly scored groups.

    Raises:
        ModelError: the model's likelihood of a continuation is not a number, or a continuation does not fit it.
    """
    for first in range(0, len(groups), GROUPS_SORTED_TOGETHER):
        part = range(first, min(first + GROUPS_SORTED_TOGETHER, len(groups)))
        rows = [row for number in part for row in _rows(number, groups[number], model)]
        found: dict[int, list[Score | None]] = {number: [None] * len(groups[number].continuations) for number in part}
        with evaluating(model):
            for batch in _batches(rows):
                for row, scores in zip(batch, _score(model, batch), strict=True):
                    for place, score in zip(row.places, scores, strict=True):
                        found[row.group][place] = score
                for number in dict.fromkeys(row.group for row in batch):
                    whole = [score for score in found[number] if score is not None]
                    if len(whole) == len(found[number]):
                        yield number, whole
                        if progress:
                            progress(1)


@dataclass(frozen=True, slots=True)
class _Row:
    """A context, continuations behind it, and which of their group's they are."""

    group: int
    places: Sequence[int]
    context: Ids
    continuations: Sequence[Ids]

    @property
    def length(self) -> int:
        """Tokens the model reads: of each continuation all but the last."""
        return len(self.context) + sum(len(one) - 1 for one in self.continuations)


def _rows(number: int, group: Group, model: Model) -> Iterator[_Row]:
    """One row where all continuations have the same context; else, or where attention has a window, one for each."""
    most = int(model.config.max_position_embeddings) + 1  # the last token is not read
    room = [most - len(one) for one in group.continuations]
    if min(room) < 1:
        got = f"{most - min(room)} tokens"
        raise ModelError("A text to score is too long for the model.", expected=f"at most {most - 1} tokens", got=got)
    if min(room) >= len(group.context) and getattr(model.config, "sliding_window", None) is None:
        yield _Row(number, range(len(room)), group.context, group.continuations)
        return
    for place, (free, one) in enumerate(zip(room, group.continuations, strict=True)):
        yield _Row(number, [place], group.context[-free:], [one])


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Rows in batches of at most ``BATCH_TOKENS``, the longest first: what does not fit fails at once."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if batch and (len(batch) + 1) * batch[0].length > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class _SideBySide:
    """Positions and views of rows whose continuations stand side by side; a :class:`bimo.models.attention.Cache`.

    It keeps nothing: everything is computed in one pass.
    """

    def __init__(self, batch: Sequence[_Row], device: torch.device) -> None:
        length = batch[0].length
        positions = torch.zeros(len(batch), length, dtype=torch.long)
        sees = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(batch), 1, 1)  # (B, T, T)
        for number, row in enumerate(batch):
            end = len(row.context)
            positions[number, :end] = torch.arange(end)
            for one in row.continuations:
                begin, end = end, end + len(one) - 1
                positions[number, begin:end] = torch.arange(len(row.context), len(row.context) + end - begin)
                sees[number, begin:end, len(row.context) : begin] = False
        self._positions, self._sees = positions.to(device), sees[:, None].to(device)

    def positions(self, _: int) -> Tensor:
        return self._positions

    def mask(self, _: int) -> Tensor:
        return self._sees

    def append(self, _: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values


def _score(model: Model, batch: Sequence[_Row]) -> Iterator[list[Score]]:
    device, length = model.output_weight.device, batch[0].length
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    read: list[int] = []  # which hidden state gives the next token ...
    labels: list[int] = []  # ... and that token
    for number, row in enumerate(batch):
        flat = [*row.context, *(id for one in row.continuations for id in one[:-1])]
        ids[number, : len(flat)] = torch.tensor(flat)
        end = len(row.context)
        for one in row.continuations:
            begin, end = end, end + len(one) - 1
            read += [number * length + len(row.context) - 1, *range(number * length + begin, number * length + end)]
            labels += one
    cache = _SideBySide(batch, device) if any(len(row.continuations) > 1 for row in batch) else None
    hidden = model.hidden(ids.to(device), cache=cache).flatten(0, 1)[torch.tensor(read, device=device)]  # (M, C)
    nats, best = [], []
    for logits, target in logits_of(model, hidden, torch.tensor(labels, device=device)):  # (rows, V), (rows,)
        nats.append(F.cross_entropy(logits, target, reduction="none"))
        best.append(logits.argmax(-1) == target)
    yield from _by_row(batch, torch.cat(nats).double().cpu(), torch.cat(best).cpu())


def _by_row(batch: Sequence[_Row], nats: Tensor, best: Tensor) -> Iterator[list[Score]]:
    if not nats.isfinite().all():
        expected, got = "finite log-probabilities", "NaN or infinity"
        raise ModelError("The model gives a continuation no likelihood.", expected=expected, got=got)
    place = 0
    for row in batch:
        scores = []
        for one in row.continuations:
            part = slice(place, place + len(one))
            scores.append(Score(-float(nats[part].sum()), bool(best[part].all()), len(one)))
            place += len(one)
        yield scores
