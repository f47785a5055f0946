"""What a text classifier must beat: the commonest class, and TF-IDF with logistic regression. And the nearest text.

A feature is a word or a pair of neighbouring words; in Chinese and other scripts without spaces a character or a pair.

Shapes: N texts, F features, K classes, E (text, feature) pairs that occur.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bimo.text.shingles import Hashes, words_of

FEWEST = 2  # texts that a feature occurs in: what stands in one alone says nothing of another
STRENGTH = 3.0  # C of the logistic regression: the weight of the fit against that of the penalty
STEPS = 200
TOLERANCE = 1e-4  # of each gradient
LARGEST_TABLE = 1 << 22  # numbers of the vectors of texts that are compared at once
_PAIR = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class _Sparse:
    """A matrix by rows: the columns of all entries on end, (E,), their values, (E,), and where each row begins."""

    columns: Tensor
    values: Tensor
    begins: Tensor

    def __matmul__(self, table: Tensor) -> Tensor:
        return F.embedding_bag(self.columns, table, self.begins, mode="sum", per_sample_weights=self.values)

    def transposed(self, width: int) -> _Sparse:
        """The same by columns, of which there are ``width``."""
        ends = torch.cat([self.begins[1:], torch.tensor([len(self.columns)])])
        rows = torch.repeat_interleave(torch.arange(len(self.begins)), ends - self.begins)
        order = torch.argsort(self.columns, stable=True)
        begins = torch.searchsorted(self.columns[order], torch.arange(width))
        return _Sparse(rows[order], self.values[order], begins)


class _Vectors:
    """TF-IDF vectors of length 1 with smoothed idf.

    Args:
        found: the features of the texts that say which are known, and how common each is.
        fewest: texts that a feature must occur in.
    """

    def __init__(self, found: Sequence[Hashes], fewest: int) -> None:
        known, number = np.unique(np.concatenate([np.unique(one) for one in found]), return_counts=True)
        # (F + 1,), sorted; nothing hashes to the last, whose column holds the biases.
        self._known: Hashes = np.append(known[number >= fewest], np.uint64(2**64 - 1))
        self._idf = np.log((1 + len(found)) / (1 + number[number >= fewest])) + 1
        self.width = len(self._known)

    def of(self, found: Sequence[Hashes]) -> _Sparse:
        """The vectors of texts with these features, (N, F + 1); the last feature is 1 in all of them."""
        columns, values = [], []
        for one in found:
            kinds, counts = np.unique(one, return_counts=True)
            here = np.searchsorted(self._known, kinds)
            inside = self._known[here] == kinds
            weighed = counts[inside] * self._idf[here[inside]]
            columns += [here[inside], [len(self._idf)]]
            values += [weighed / max(1e-12, float(np.linalg.norm(weighed))), [1.0]]
        begins = np.cumsum([0, *(len(one) + 1 for one in columns[::2])])[:-1]
        return _Sparse(*(torch.from_numpy(part) for part in (np.concatenate(columns), np.concatenate(values), begins)))


class TfIdf:
    """TF-IDF vectors, and multinomial logistic regression with an L2 penalty.

    The formulas are scikit-learn's (Pedregosa et al. 2011), so that its figures are comparable.

    Attributes:
        classes: K, in the order of the probabilities.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str], *, strength: float = STRENGTH) -> None:
        found = [features(text) for text in texts]
        self._vectors = _Vectors(found, FEWEST)
        self.classes = tuple(sorted({*labels}))
        numbers = {label: number for number, label in enumerate(self.classes)}
        self._weights = torch.zeros(self._vectors.width, len(self.classes), dtype=torch.double)
        self._fit(self._vectors.of(found), torch.tensor([numbers[label] for label in labels]), strength)

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Of each class, (N, K)."""
        scores = self._vectors.of([features(text) for text in texts]) @ self._weights
        result: npt.NDArray[np.float64] = scores.softmax(dim=-1).numpy()
        return result

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        return [self.classes[number] for number in self.probabilities(texts).argmax(axis=1)]

    def _fit(self, rows: _Sparse, labels: Tensor, strength: float) -> None:
        """Find the one optimum, by L-BFGS on all texts at once."""
        rules = {"max_iter": STEPS, "tolerance_grad": TOLERANCE, "history_size": 10, "line_search_fn": "strong_wolfe"}
        solver = torch.optim.LBFGS([self._weights], **rules)  # type: ignore[arg-type]
        by_feature, truth = rows.transposed(len(self._weights)), F.one_hot(labels, len(self.classes))
        shrink = torch.full((len(self._weights), 1), 1 / (strength * len(labels)), dtype=torch.double)
        shrink[-1] = 0.0  # biases are free

        def closure() -> Tensor:
            """The loss; its gradient by hand, as that of an embedding takes five times as long."""
            log = (rows @ self._weights).log_softmax(dim=-1)  # (N, K)
            pull = shrink * self._weights
            self._weights.grad = by_feature @ ((log.exp() - truth) / len(labels)) + pull
            return -(log * truth).sum() / len(labels) + (pull * self._weights).sum() / 2

        solver.step(closure)


class Nearest:
    """Finds the known text that is most like another one, by the cosine of their TF-IDF vectors."""

    def __init__(self, texts: Sequence[str]) -> None:
        found = [features(text) for text in texts]
        self._vectors = _Vectors(found, 1)  # here what stands in one text alone says most
        self._rows = self._vectors.of(found)

    def of(self, texts: Sequence[str]) -> list[int]:
        """The number of the nearest text to each; of equally near ones the first."""
        nearest: list[int] = []
        width = max(1, LARGEST_TABLE // self._vectors.width)
        for first in range(0, len(texts), width):
            part = self._vectors.of([features(text) for text in texts[first : first + width]])
            count = len(part.begins)
            owners = torch.repeat_interleave(
                torch.arange(count), torch.diff(part.begins, append=torch.tensor([len(part.columns)]))
            )
            table = torch.zeros(self._vectors.width, count, dtype=torch.double)
            table[part.columns, owners] = part.values
            cosines = self._rows @ table  # (N, count), all of them greater by the 1 that every text has
            nearest += [int(column.argmax()) for column in cosines.numpy().T.round(12)]
        return nearest


def features(text: str) -> Hashes:
    """A hash of each word and of each pair of neighbouring words, as often as they occur."""
    words = words_of(text).hashes
    return np.concatenate([words, words[:-1] * _PAIR + words[1:]])


def majority(labels: Sequence[str]) -> str:
    """The commonest class; of equally common ones the first by name."""
    return min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))[0]
