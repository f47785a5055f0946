"""What a task is: one file that says which columns it reads, what an example is, and what is to be made small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.patient import Batches
from bimo.tune.examples import Example
from bimo.tune.rows import Row

if TYPE_CHECKING:
    from bimo.tune.materials import Materials

YOUNG = 2.5  # times the rate of all weights that a model wants which has read little: see docs/experiments.md

Rewrite: TypeAlias = Callable[[Callable[[Any], object]], None]


@dataclass(frozen=True)
class Role:
    """One thing that a task wants from each row.

    Attributes:
        name: what it is, and the word in the task's option: ``label`` in ``--label-column``.
        usual: names that such a column often has, likeliest first, in lower case.
        needed: whether a row without it cannot be used.
    """

    name: str
    usual: tuple[str, ...]
    needed: bool = True


@dataclass(frozen=True)
class Refused:
    """Why a row gives no example; equal reasons are counted together."""

    reason: str


class Task(Protocol):
    """What :func:`bimo.tune.tune.tune` needs to know. Rows come with a key for each role that was found.

    Attributes:
        name: the ``kind`` of the run in its lineage.
        roles: what it reads of a row.
        documents: whether a row is a whole file of text, with the columns ``text`` and ``path``.
        skips: proofs of the doctor that say nothing about its batches, each with the reason.
    """

    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> Sequence[Role]: ...
    @property
    def documents(self) -> bool: ...
    @property
    def skips(self) -> Mapping[str, str]: ...

    def settled(self, rows: Sequence[Row]) -> Task:
        """The task once all rows are known, such as their labels; itself where nothing depends on them."""
        ...

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        """Question and answer of a row as plain text, by which equal and conflicting rows are found."""
        ...

    def open(self, folder: Path, device: torch.device, *, seed: int = 0) -> tuple[Any, Tokenizer]:
        """The model to begin with, float32, and its tokenizer, both as the run will save them.

        Args:
            seed: of weights that the folder has not, such as a fresh head's.

        Raises:
            BimoError: the folder holds nothing that this task can begin with.
        """
        ...

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        """What a row teaches, in examples of at most ``longest`` positions."""
        ...

    def batches(self, examples: Sequence[Example], *, batch_size: int, length: int, seed: int) -> Batches:
        """Endless batches for training, in an order that their state describes."""
        ...

    def held_out(self, examples: Sequence[Example], *, batch_size: int, length: int) -> list[Batch]:
        """Every example once."""
        ...

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        """The mean loss of what counts in the batch, and further figures to record."""
        ...

    def measure(self, model: Any, batches: list[Batch]) -> dict[str, float]:
        """Figures of held-out batches, without gradients; ``loss`` is the one that training watches."""
        ...

    def figures(self, model: Any, examples: Sequence[Example], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        """What the lineage says of test examples, before training and after it, such as ``test_bits_per_byte``."""
        ...

    def learned_bytes(self, example: Example, tokenizer: Tokenizer) -> int:
        """UTF-8 bytes of what an example teaches, which the figures of training are divided by."""
        ...

    def baselines(self, materials: Materials) -> dict[str, Any]:
        """By name, the figures on the test rows of what needs no such model and must be beaten."""
        ...

    def finish(self, model: Any, materials: Materials, rewrite: Rewrite, *, length: int) -> dict[str, Any]:
        """Do what is left to do with the best weights; further figures for the lineage.

        Args:
            model: these weights, for measuring.
            rewrite: does the same to the weights that the run keeps, which may be an adapter's.
        """
        ...

    def ends(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The ids that end what is learned; empty where nothing has an end."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Write the model so that :meth:`load` and Hugging Face read it."""
        ...

    def load(self, folder: Path, device: torch.device) -> Any:
        """Read what :meth:`save` wrote, for evaluation."""
        ...


@runtime_checkable
class Comparing(Protocol):
    """A task whose examples need to know what the model makes of them before it is trained."""

    def compared(self, model: Any, examples: Sequence[Example], *, length: int, path: Path) -> Sequence[Example]:
        """The examples with it; kept at ``path``, where it is found again when the run is resumed."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A task whose model is asked the questions of held-out rows, and measured by what it writes."""

    @property
    def num_beams(self) -> int:
        """Answers that are followed at once for the likeliest; 1 = token by token."""
        ...

    def accepted(self, row: Row) -> Sequence[str]:
        """The right answers of a row that :meth:`Task.texts` has taken."""
        ...

    def metrics(self, accepted: Sequence[Sequence[str]]) -> Sequence[str]:
        """Names of ``bimo.evaluate.metrics`` for these right answers; none where the model is not to write."""
        ...


@runtime_checkable
class Acting(Protocol):
    """A task whose batches are what the model itself does."""

    def acting(self, model: Any, tokenizer: Tokenizer, reference: Callable[[], Any]) -> Task:
        """The task with this model, which training changes.

        Args:
            reference: loads the model as it was before training.
        """
        ...

    def load(self, folder: Path, device: torch.device) -> Any:
        """See :class:`Task`."""
        ...


def rate_of(task: Task, *, young: bool = False) -> float:
    """What the task's learning rates are, as a share of those of chat with a model that has read much.

    Args:
        young: whether the model has read little. Most of how to answer is then still to be learned.
    """
    return float(getattr(task, "rate", 1.0)) * (float(getattr(task, "young", YOUNG)) if young else 1.0)


def fewest_rows(task: Task) -> int:
    """Rows of a step that the plan does not go below, where the task says so."""
    return int(getattr(task, "prompts", 1))


def divisible(task: Task) -> bool:
    """Whether a step that is divided into passes learns the same: each part of it counts by itself."""
    return not isinstance(task, Acting) and bool(getattr(task, "divisible", True))


def unit_of(task: Task) -> str:
    """What the bits that training shows are of."""
    return str(getattr(task, "unit", "byte"))


def dropout_of(task: Task) -> float:
    """The dropout that the task learns with, unless the user says otherwise."""
    return float(getattr(task, "dropout", 0.0))


def in_bits(task: Task) -> bool:
    """Whether the loss is nats of text, which can be told in bits per byte."""
    return bool(getattr(task, "in_bits", True))
