"""Classes of texts: an encoder or a decoder with a head, calibrated, and beside it what it must beat.

A text is packed as the tokens that stock tools make of it; the label stands where its last token would predict the
next one, and is the number of its class. Shapes: B rows, T positions, N texts, L classes.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.config import setting
from bimo.device import seed_for
from bimo.errors import ConfigError, DataError
from bimo.evaluate.intervals import wilson
from bimo.evaluate.tfidf import TfIdf, majority
from bimo.models.heads import Classifier, Kind, load_classifier, new_classifier
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.examples import Example
from bimo.tune.language import Packed
from bimo.tune.materials import Materials
from bimo.tune.packing import packed_once
from bimo.tune.rows import Row
from bimo.tune.task import Refused, Rewrite, Role
from bimo.tune.temperature import best_temperature, calibration_error, fitted_temperature

ROLES = (
    Role(
        "text",
        ("text", "sentence", "review", "content", "comment", "tweet", "headline", "title", "文本", "评论", "内容"),
    ),
    Role("label", ("label", "sentiment", "class", "category", "target", "topic", "rating", "标签", "类别", "情感")),
)
NO_LANGUAGE_MODEL = "the labels are classes, not the tokens that follow"
SKIPPED = ("labels", "end of text", "loss", "first loss", "causality", "packing", "padding", "accumulation")
MOST_CLASSES = 1000
LARGEST_SHARE = 0.5  # of the rows that may have a label of their own
EVALUATED_ROWS = 8  # of a batch


@dataclass(frozen=True)
class Classify(Packed):
    """Learn the class of a text."""

    weights: Literal["none", "balanced"] = setting(
        "none", "what an example counts: balanced is in inverse proportion to how common its class is"
    )
    smoothing: float = setting(0.0, "share of each label that is spread over all classes (Szegedy et al. 2016)")
    freeze: int = setting(0, "layers from the bottom, the embedding with them, that stay as they are")
    calibrate: bool = setting(True, "find a temperature on validation texts and fold it into the head")
    classes: tuple[str, ...] = setting((), "the classes in their order; those of the data if not given")
    counts: tuple[int, ...] = setting((), "rows of each class, which the data say")

    rate, dropout = 0.5, 0.1  # of the learning rate of chat; of activations: see docs/experiments.md
    young = 1.0  # times that rate, with a model that has read little: no more than with any other

    unit = "label"  # that the bits of training are of
    kind: ClassVar[Kind] = "text"
    wanted: ClassVar[str] = "text and label"
    labelled: ClassVar[str] = "rows"
    label_role: ClassVar[str] = "label"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ConfigError("smoothing is wrong.", expected="a share from 0 to below 1", got=str(self.smoothing))

    @property
    def name(self) -> str:
        return "classify"

    @property
    def roles(self) -> Sequence[Role]:
        return ROLES

    @property
    def skips(self) -> Mapping[str, str]:
        return {**dict.fromkeys(SKIPPED, NO_LANGUAGE_MODEL), "transformers": "the tests compare heads with it"}

    def settled(self, rows: Sequence[Row]) -> Self:
        """With the classes of the data.

        Raises:
            DataError: there are none, only one, or as many as there are rows; or one that was not named.
        """
        found = [said for row in rows if not isinstance(said := self.texts(row), Refused)]
        return self.knowing(Counter(label for _, label in found))

    def knowing(self, counts: Counter[str]) -> Self:
        """With these classes, as common as that.

        Raises:
            DataError: as :meth:`settled`.
        """
        total = sum(counts.values())
        if self.classes and (others := sorted(counts.keys() - {*self.classes})):
            got = f"{others[0]} and {len(others) - 1} more" if len(others) > 1 else others[0]
            raise DataError("The data has a class that was not named.", expected=", ".join(self.classes), got=got)
        if len(counts) < 2:
            got = f"{total:,} with the class {next(iter(counts))}" if counts else f"no row with {self.wanted}"
            names = " ".join(f"{role.name}=COLUMN" for role in self.roles)
            fix = f"Add rows of other classes, or name the columns: --columns {names}."
            raise DataError("There is nothing to tell apart.", expected="rows of two classes or more", got=got, fix=fix)
        if len(counts) > MOST_CLASSES or len(counts) > max(20, LARGEST_SHARE * total):
            got = f"{len(counts):,} different ones in {total:,} {self.labelled}, such as {next(iter(counts))[:60]}"
            fix = f"Name the column that holds the classes: --columns {self.label_role}=COLUMN."
            raise DataError("The labels are no classes.", expected="a few values that recur", got=got, fix=fix)
        classes = self.classes or tuple(sorted(counts, key=_order))
        return dataclasses.replace(self, classes=classes, counts=tuple(counts[name] for name in classes))

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        text, label = row.values.get("text"), label_text(row.values.get("label"))
        if not isinstance(text, str) or not text.strip():
            return Refused("no text")
        return (text, label) if label else Refused("no label")

    def open(self, folder: Path, device: torch.device, *, seed: int = 0) -> tuple[Classifier, Tokenizer]:
        generator = torch.Generator().manual_seed(seed_for(seed, "head"))
        model = new_classifier(folder, self.classes, kind=self.kind, generator=generator, device=device)
        return self._frozen(model), Tokenizer.load(folder)

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        said = self.texts(row)
        if isinstance(said, Refused):
            return said
        before, after = tokenizer.around
        ids, room = tokenizer.encode(said[0]), longest - len(before) - len(after)
        whole = [*before, *ids[:room], *after]
        if not whole:
            return Refused("no token in the text")
        counts = np.zeros(len(whole) + 1, dtype=np.bool_)
        counts[-1] = True
        number = self.classes.index(said[1])
        return [Example(np.array([*whole, number]), counts, row.number, cut=max(0, len(ids) - room))]

    def learned_bytes(self, example: Example, tokenizer: Tokenizer) -> int:
        """Counted as one, so that what training shows are bits a label."""
        return 1

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        """The mean over the texts; weights have the mean 1 over the data, so that a divided step is the same step."""
        scores, labels = scores_of(model, batch)
        if self.weights == "balanced":
            total = sum(self.counts)
            of_class = torch.tensor([total / (len(self.counts) * max(1, n)) for n in self.counts], device=scores.device)
        else:
            of_class = torch.ones(len(self.classes), device=scores.device)
        nats = F.cross_entropy(scores, labels, reduction="none", label_smoothing=self.smoothing)
        return (nats * of_class[labels]).mean(), {}

    @torch.no_grad()
    def measure(self, model: Any, batches: list[Batch]) -> dict[str, float]:
        """Nats a text without weights and smoothing, and the share of texts whose class is found.

        Where the model will be calibrated, they are those at the best temperature. Else training on few texts would
        stop at the first overconfidence, long before fewer classes are found.
        """
        scores, labels = all_scores(model, batches)
        right = (scores.argmax(dim=-1) == labels).double().mean()
        if self.calibrate:
            scores = scores / fitted_temperature(scores, labels)
        return {"loss": float(F.cross_entropy(scores, labels)), "accuracy": float(right)}

    def figures(self, model: Any, examples: Sequence[Example], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        scores, labels = all_scores(model, packed_once(examples, EVALUATED_ROWS, length))
        chosen = scores.argmax(dim=-1)
        confusion = torch.zeros(len(self.classes), len(self.classes), dtype=torch.long)
        confusion.index_put_((labels, chosen), torch.ones_like(labels), accumulate=True)
        return {
            "test_accuracy": wilson(int((chosen == labels).sum()), len(labels)),
            "test_macro_f1": _macro_f1(confusion),
            "test_nats": float(F.cross_entropy(scores, labels)),
            "test_calibration_error": calibration_error(scores, labels),
            "confusion": {"classes": list(self.classes), "counts": confusion.tolist()},
        }

    def finish(self, model: Any, materials: Materials, rewrite: Rewrite, *, length: int) -> dict[str, Any]:
        """Calibrate the model on validation texts."""
        if not self.calibrate or not materials.validation:
            return {}
        scores, labels = all_scores(model, packed_once(materials.validation, EVALUATED_ROWS, length))
        told = {"temperature": best_temperature(scores, labels)}
        if materials.test:
            scores, labels = all_scores(model, packed_once(materials.test, EVALUATED_ROWS, length))
            told["test_calibration_error_before"] = calibration_error(scores, labels)
        cool = operator.methodcaller("divide_scores", told["temperature"])
        cool(model)
        rewrite(cool)
        return told

    def ends(self, tokenizer: Tokenizer) -> frozenset[int]:
        return frozenset()

    def load(self, folder: Path, device: torch.device) -> Classifier:
        return self._frozen(load_classifier(folder, device=device, dtype=torch.float32))

    def _frozen(self, model: Classifier) -> Classifier:
        """The model ready to learn, but for its lowest layers.

        Raises:
            ConfigError: there are fewer layers.
        """
        layers = model.config.num_hidden_layers
        if not 0 <= self.freeze <= layers:
            raise ConfigError("freeze is wrong.", expected=f"0 to {layers}, the layers there are", got=str(self.freeze))
        for name, parameter in model.named_parameters():
            layer = re.search(r"\.(?:layers?|h)\.(\d+)\.", name)
            low = int(layer[1]) < self.freeze if layer else bool(re.search("embed|wte|wpe", name))
            parameter.requires_grad_(not (self.freeze and low))
        if model.output_weight.device.type == "cpu":
            model.sparse_gradient()
        return model

    def baselines(self, materials: Materials) -> dict[str, Any]:
        """Accuracy and macro F1 of the commonest class, and of TF-IDF with logistic regression."""
        sides = ((materials.train, "train"), (materials.test, "test"))
        said = {side: [self.texts(materials.rows[example.row]) for example in examples] for examples, side in sides}
        pairs = {side: [one for one in found if not isinstance(one, Refused)] for side, found in said.items()}
        texts, labels = zip(*pairs["train"], strict=True)
        tested, truth = zip(*pairs["test"], strict=True)
        commonest = [majority(labels)] * len(truth)
        chosen = {"majority": commonest, "TF-IDF + logistic regression": commonest}
        if len({*labels}) > 1:
            chosen["TF-IDF + logistic regression"] = TfIdf(texts, labels).predict(tested)
        place = {name: number for number, name in enumerate(self.classes)}
        figures = {}
        for name, found in chosen.items():
            confusion = torch.zeros(len(self.classes), len(self.classes), dtype=torch.long)
            for one, label in zip(found, truth, strict=True):
                confusion[place[label], place[one]] += 1
            right = int(confusion.diagonal().sum())
            figures[name] = {"accuracy": wilson(right, len(truth)), "macro_f1": _macro_f1(confusion)}
        return figures


def scores_of(model: Classifier, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores (N, L) of the texts, or tokens, whose labels count, and the labels (N,)."""
    at = batch.loss_mask
    labels = batch.labels[at]
    if model.first and model.kind == "text":  # the label stands at the last token
        rows, columns = at.nonzero(as_tuple=True)
        begins = (columns - batch.position_ids[at]).clamp(min=0)
        hidden = model.hidden(batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
        return model.scores(hidden[rows, begins]), labels
    return model(batch.input_ids, at, position_ids=batch.position_ids, segment_ids=batch.segment_ids), labels


@torch.no_grad()
def all_scores(model: Classifier, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """The same of several batches, without gradients, on the CPU."""
    device = model.output_weight.device
    pairs = [scores_of(model, batch.to(device)) for batch in batches]
    return torch.cat([scores for scores, _ in pairs]).cpu(), torch.cat([labels for _, labels in pairs]).cpu()


def label_text(value: Any) -> str:
    """A label of any type as text: 1, 1.0, "1" and "1.0", as tables write whole numbers that have gaps, are one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip())


def _order(label: str) -> tuple[bool, float, str]:
    """Numbers first, by their value."""
    number = re.fullmatch(r"-?\d+(?:\.\d+)?", label)
    return (False, float(label), label) if number else (True, 0.0, label)


def _macro_f1(confusion: Tensor) -> float:
    """The mean over the classes that occur; rows are labels, columns what was chosen."""
    right, said, true = confusion.diagonal().double(), confusion.sum(dim=0), confusion.sum(dim=1)
    occurs = said + true > 0
    return float((2 * right[occurs] / (said + true)[occurs]).mean())
