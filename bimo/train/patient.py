"""What the doctor examines, and the results that several proofs share; it works on copies and moves nothing.

Shapes: B rows, T positions, N ids in the training stream.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.batches.loader import Batch
from bimo.batches.shards import Tokens
from bimo.models import copy_sharing_frozen, load_model, save_model, trained_parameters
from bimo.models.lora import LowRank
from bimo.optim import Optimizer
from bimo.optim.adamw import AdamW
from bimo.optim.rule import numbers
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.config import TrainConfig
from bimo.train.loop import Loss

ROWS, LENGTH = 4, 32  # of the slice that most proofs compute on
PASS_LENGTH = 128  # of a pass on examples
TINY_ROWS, TINY_LENGTH = 2, 16  # of the batch that is to be overfitted
OVERFIT_STEPS, OVERFIT_SECONDS = 120, 8.0
OVERFIT_FEWEST = 2  # steps, however slow: A of LoRA has no gradient before the first
OVERFIT_RATE = 0.45  # divided by the width: measured from 24 to 448, see docs/experiments.md
LOW_RANK, LOW_RANK_MOST = 12, 2  # times the rate for updates of low rank, divided by scale and rank; and at most
OVERFITTED = 0.03  # share of the first loss that counts as near zero, above what the text itself leaves open
SOME = 0.8  # likewise for updates of low rank: how much they can learn depends on the rank, that they do is the proof
MOST_BATCHES = 1024  # of an epoch that are read
SEARCHED = 16  # batches in which the roomiest beginning of a document is looked for


@dataclass(frozen=True)
class Finding:
    """What one proof saw.

    Attributes:
        ok: whether it holds; None = skipped, and ``measured`` says why.
        measured: the number it saw.
        expected: what the number should have been.
        fix: the next step where it is wrong.
        name: of the proof.
    """

    ok: bool | None
    measured: str
    expected: str = ""
    fix: str = ""
    name: str = ""


class Batches(Protocol):
    """Endless batches whose place can be put back."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...
    def state(self) -> Mapping[str, int]: ...
    def load_state(self, state: Mapping[str, int]) -> None: ...


@dataclass(frozen=True)
class Epoch:
    """What reading an epoch, or the beginning of a long one, has shown.

    Attributes:
        first: the batch that training starts with.
        boundary: (batch, row, column) where a document begins inside a row, with as much room as there is around it.
        positions: positions that were read, of which ``counted`` have a label that counts.
        ends: labels that count and are end-of-text, or what else ends a text.
        stretches: labels that count and follow one that does not: what is learned begins there.
        covered: distinct labels learned from before any of them comes a second time.
        whole: whether the epoch was read to its end.
    """

    first: Batch
    boundary: tuple[Batch, int, int] | None
    positions: int
    counted: int
    ends: int
    stretches: int
    covered: int
    whole: bool


@dataclass(frozen=True)
class Overfitted:
    """A copy that has learned a tiny batch by heart.

    Attributes:
        before, after: its loss on that batch, nats.
        floor: the loss that the batch leaves to a perfect memory, where one beginning has several continuations.
        steps: how many it took.
        in_time: whether the steps were all taken, or enough.
        alive: the parameters that had a gradient other than zero in any step.
    """

    model: Any
    before: float
    after: float
    floor: float
    steps: int
    in_time: bool
    alive: frozenset[str]


@dataclass
class Patient:
    """Everything a training is made of.

    Attributes:
        loss, divide, make_optimizer, batches: as ``fit`` will use them.
        train, validation: the token shards; None where a training has none, which skips what needs them.
        folder: where a scratch folder may be made.
        compile: turns on the compiled form of a model, where the configuration asks for it.
        thorough: also do what takes seconds, such as importing transformers.
        trained: whether the weights come from an earlier training, so that the first loss may be low.
        frozen: parameters that are meant to stay as they are.
        ends: ids that end what is learned; by default the tokenizer's end of text.
        shared: what the comparison of held-out and training text has shown, where it is not cut from shards.
        skips: proofs that say nothing about this training, each with the reason.
        shown: labels of the first row that are printed before step 1, and lines.
        classes: what labels are numbers of, where they are no tokens.
    """

    model: Any
    loss: Loss
    divide: Callable[[Batch, int], list[tuple[Batch, float]]]
    make_optimizer: Callable[[nn.Module], Optimizer]
    batches: Batches
    tokenizer: Tokenizer
    train: Tokens | None
    validation: Tokens | None
    config: TrainConfig
    folder: Path
    compile: Callable[[Any], None] | None = None
    thorough: bool = False
    trained: bool = False
    frozen: frozenset[str] = frozenset()
    ends: frozenset[int] = frozenset()
    shared: Finding | None = None
    skips: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[int, int] = (80, 5)
    classes: Sequence[str] = ()
    save: Callable[[Any, Path], None] = save_model
    load: Callable[[Path], Any] = load_model

    @functools.cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.model.parameters())).device

    @property
    def stream_eos(self) -> int | None:
        """The id that documents of the training shard begin with; None where examples are not cut from one."""
        return self.tokenizer.eos_id if self.train is not None else None

    @functools.cached_property
    def fresh(self) -> Any:
        """The model as training begins, in float32 and eager; nothing changes it, so that it shares what is float32."""
        shared = {id(p): p for p in self.model.parameters() if p.dtype == torch.float32}
        return exact(copy.deepcopy(self.model, shared))

    @functools.cached_property
    def epoch(self) -> Epoch:
        """An epoch of the batches, which are then put back."""
        state = dict(self.batches.state())
        try:
            return _read_epoch(self.batches, self.train, self.tokenizer.eos_id, self.ends)
        finally:
            self.batches.load_state(state)

    @functools.cached_property
    def slice(self) -> Batch:
        """A few rows of the first batch, shortened."""
        return best_rows(self.epoch.first, ROWS, LENGTH).to(self.device)

    @functools.cached_property
    def pass_batch(self) -> Batch:
        """One forward pass of the first step; where nothing is compiled for its shape, a few rows of it.

        Of examples, whose models are often large, the beginnings of those rows will do.
        """
        part = max(self.divide(self.epoch.first, self.config.batch.accumulate), key=lambda part: part[1])[0]
        length = part.labels.shape[1] if self.train is not None else min(PASS_LENGTH, part.labels.shape[1])
        return (part if self.compile else best_rows(part, ROWS, length)).to(self.device)

    @functools.cached_property
    def first_loss(self) -> float:
        """The loss at step 0 on :attr:`pass_batch`, float32 and eager."""
        return value_of(self.loss, self.fresh, self.pass_batch)

    @functools.cached_property
    def gradients(self) -> dict[str, Tensor | None]:
        """The gradient of each parameter on :attr:`slice` at step 0."""
        return gradients(self.loss, self.fresh, [(self.slice, 1.0)])

    @functools.cached_property
    def overfitted(self) -> Overfitted:
        """A copy that was trained on a tiny batch, whose layers therefore all have something to say."""
        model, batch = copy_sharing_frozen(self.fresh), best_rows(self.slice, TINY_ROWS, TINY_LENGTH)
        rate = OVERFIT_RATE / model.output_weight.shape[1]
        if self.low_rank:
            return _overfit(model, self.loss, batch, rate * min(LOW_RANK_MOST, LOW_RANK / self.low_rank), SOME)
        return _overfit(model, self.loss, batch, rate, OVERFITTED)

    @functools.cached_property
    def low_rank(self) -> float:
        """Scale times rank of the updates of low rank that are learned beside frozen weights; 0 if there are none."""
        return max(
            (one.scale * one.lora_A.out_features for one in self.model.modules() if isinstance(one, LowRank)),
            default=0.0,
        )

    def take_gradients(self) -> dict[str, Tensor | None]:
        """The :attr:`gradients` for the last time, to be changed: of a large model they are not held twice."""
        found = self.gradients
        del self.gradients
        return found


def exact(model: Any) -> Any:
    """The given model in float32 without dropout, changed in place."""
    if hasattr(model, "compute_dtype"):
        model.compute_dtype = None
    return model.float().eval()


def value_of(loss: Loss, model: Any, batch: Batch) -> float:
    """The loss as a number."""
    with torch.no_grad():
        return float(loss(model, batch)[0])


def gradients(loss: Loss, model: Any, parts: list[tuple[Batch, float]]) -> dict[str, Tensor | None]:
    """The gradients that the parts, each with its share, add up to; the model keeps none."""
    model.zero_grad(set_to_none=True)
    for part, share in parts:
        value = loss(model, part)[0] * share
        if value.requires_grad:
            value.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def label_nats(model: Any, batch: Batch, *, alone: bool = False) -> Tensor:
    """The cross-entropy of every label (B, T), in float32, computed without the training's own loss.

    Args:
        alone: give the model neither position nor segment ids: each row is one document from its beginning.
    """
    positions, segments = (None, None) if alone else (batch.position_ids, batch.segment_ids)
    with torch.no_grad():
        hidden = model.hidden(batch.input_ids, position_ids=positions, segment_ids=segments)
        logits = F.linear(hidden.float(), model.output_weight.float())  # (B, T, V)
        return F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")


def changed(batch: Batch, **tensors: Tensor) -> Batch:
    """The batch with other tensors in places."""
    return dataclasses.replace(batch, **tensors)


def cut(batch: Batch, rows: Tensor | slice, columns: slice) -> Batch:
    """Some rows and columns of a batch."""
    values = {field.name: getattr(batch, field.name)[rows] for field in dataclasses.fields(batch)}
    return dataclasses.replace(
        batch, **{name: value[:, columns] if value.ndim > 1 else value for name, value in values.items()}
    )


def best_rows(batch: Batch, rows: int, length: int) -> Batch:
    """The beginnings of the rows with most labels that count, longer ones if none counts there."""
    while length < batch.labels.shape[1] and not batch.loss_mask[:, :length].any():
        length *= 2
    counts = batch.loss_mask[:, :length].sum(dim=1)
    chosen = counts.argsort(descending=True, stable=True)[:rows].sort().values
    return cut(batch, chosen, slice(0, length))


def _read_epoch(batches: Batches, tokens: Tokens | None, eos_id: int, end_ids: frozenset[int]) -> Epoch:
    first: Batch | None = None
    boundary: tuple[Batch, int, int] | None = None
    room = positions = counted = ends = stretches = 0
    ending = torch.tensor(sorted(end_ids or {eos_id}))
    seen = np.zeros(tokens.count if tokens else 0, dtype=bool)
    most, again = MOST_BATCHES, False
    while most and not again:
        batch, most = next(batches), most - 1
        first = batch if first is None else first
        if tokens is None:
            again = most <= MOST_BATCHES - 8  # such batches say nothing of where an epoch ends
        else:
            batch, again = _unseen_rows(batch, seen, eos_id)
        positions += batch.labels.numel()
        counted += int(batch.loss_mask.sum())
        ends += int((batch.loss_mask & torch.isin(batch.labels, ending)).sum())
        stretches += int(batch.loss_mask[:, 0].sum() + (batch.loss_mask[:, 1:] & ~batch.loss_mask[:, :-1]).sum())
        if room < LENGTH // 2 and (not room or MOST_BATCHES - most <= SEARCHED):
            starts = begins(batch, eos_id if tokens is not None else None)
            for row, column in starts.nonzero().tolist():
                length, counts = _from(batch, row, column, starts)
                around = min(column, length)
                if around > room and counts:
                    boundary, room = (batch, row, column), around
        if tokens is not None and seen.all():
            again = True
    assert first is not None
    return Epoch(first, boundary, positions, counted, ends, stretches, int(seen.sum()), again)


def _unseen_rows(batch: Batch, seen: np.ndarray[Any, np.dtype[np.bool_]], eos_id: int) -> tuple[Batch, bool]:
    """The rows before the first that repeats a label, which are marked as seen, and whether there is such a row.

    Whether the end of a document counts is not this one's question.
    """
    places = (batch.positions[:, None] + torch.arange(batch.labels.shape[1])).numpy() % seen.size  # (B, T)
    counts = batch.loss_mask.numpy()
    repeated = (seen[places] & counts & (batch.labels.numpy() != eos_id)).any(axis=1)
    good = int(repeated.argmax()) if repeated.any() else len(repeated)
    counts = counts | (batch.labels.numpy() == eos_id)
    seen[places[:good][counts[:good]]] = True
    return (cut(batch, slice(0, good), slice(None)) if good < len(repeated) else batch), good < len(repeated)


def begins(batch: Batch, eos_id: int | None) -> Tensor:
    """Where another document than that of the position before begins (B, T); never at the first position.

    Args:
        eos_id: what documents of a stream begin with; the batch's word for it is not taken then.
    """
    if eos_id is not None:
        starts = batch.input_ids == eos_id
    else:
        starts = batch.segment_ids != batch.segment_ids.roll(1, dims=1)
    starts[:, 0] = False
    return starts


def _from(batch: Batch, row: int, column: int, starts: Tensor) -> tuple[int, bool]:
    """Positions of the document that begins at ``column`` that lie in the row, and whether any label of it counts."""
    following = starts[row, column + 1 :].nonzero()
    length = int(following[0]) + 1 if len(following) else starts.shape[1] - column
    return length, bool(batch.loss_mask[row, column : column + length].any())


def _overfit(model: Any, loss: Loss, batch: Batch, rate: float, share: float) -> Overfitted:
    """Train on one batch by plain AdamW until a share of the loss is left, the steps are used up, or the time is.

    Each gradient is used as soon as it is there, so that those of a large model are never all held.
    """
    began = time.perf_counter()
    rules = {p: (name, AdamW([p], rate, eps=1e-8)) for name, p in trained_parameters(model).items()}
    floor = _floor(batch)
    alive: set[str] = set()
    value, before, steps = 0.0, float("nan"), 0

    def learn(parameter: Tensor) -> None:
        name, rule = rules[parameter]  # type: ignore[index]
        assert parameter.grad is not None
        if bool(numbers(parameter.grad).any()):
            alive.add(name)
        rule.step()
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(learn) for parameter in rules]
    while True:
        result = loss(model, batch)[0]
        value = float(result.detach())
        before = value if steps == 0 else before
        in_time = time.perf_counter() - began < OVERFIT_SECONDS
        enough = value <= floor + share * before
        done = steps >= OVERFIT_FEWEST and (enough or not in_time)
        if not rules or done or steps == OVERFIT_STEPS or value != value:
            break
        result.backward()
        steps += 1
    for hook in hooks:
        hook.remove()
    return Overfitted(model, before, value, floor, steps, in_time or enough, frozenset(alive))


def _floor(batch: Batch) -> float:
    """Mean nats that remain if each label is known as well as what is visible before it allows."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, (ids, labels, counts) in enumerate(
        zip(batch.input_ids.tolist(), batch.labels.tolist(), batch.loss_mask.tolist(), strict=True)
    ):
        segments = batch.segment_ids[row].tolist()
        for column, label in enumerate(labels):
            if counts[column]:
                begin = segments.index(segments[column])
                groups[tuple(ids[begin : column + 1])].append(label)
    total = 0.0
    for labels in groups.values():
        _, sizes = np.unique(labels, return_counts=True)
        total -= float((sizes * np.log(sizes / sizes.sum())).sum())
    return total / max(1, sum(map(len, groups.values())))
