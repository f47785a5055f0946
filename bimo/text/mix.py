"""A data mixture: how often the training documents of each source are read; held-out documents are not touched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from bimo.device import seed_for
from bimo.errors import ConfigError
from bimo.text.document import Document
from bimo.text.split import Part

_AFTER_A_NAME = "/:#"  # what follows the name of a source in the ids of its documents


class Mixture:
    """One weight for each source: its whole part repeats all documents, its fraction takes a seeded share of them.

    The share is nested: what a weight of 0.3 takes, 0.5 takes too.

    Args:
        names: the sources, as they were given to :func:`bimo.text.source.open_source`.
        weights: one for each of them.

    Raises:
        ConfigError: there are more or fewer weights than sources, one is negative, or all are zero.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[float], *, seed: int) -> None:
        if len(weights) != len(names) or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            expected = f"{len(names)} numbers from 0 up, one for each entry of data, not all 0"
            raise ConfigError("reading.weights is wrong.", expected=expected, got=str(list(weights)))
        by_name = {Path(name).as_posix(): weight for name, weight in zip(names, weights, strict=True)}
        self._weights = sorted(by_name.items(), key=lambda item: -len(item[0]))  # the innermost folder decides
        self._seed, self._only = seed, weights[0] if len(weights) == 1 else None

    def weight_of(self, document: str) -> float:
        """The weight of a document's source, by the document's id."""
        if self._only is not None:
            return self._only
        for name, weight in self._weights:
            if document.startswith(name) and document[len(name) : len(name) + 1] in ("", *_AFTER_A_NAME):
                return weight
        return 1.0

    def copies(self, document: str) -> int:
        """How often the document with this id is read in an epoch."""
        whole, share = divmod(self.weight_of(document), 1.0)
        taken = share > 0 and seed_for(self._seed, "mix", document) < share * (1 << 63)
        return int(whole) + taken


class Mixed(Part):
    """The training part of a split, read as the mixture says.

    Raises:
        ConfigError: the mixture takes no document at all.
    """

    def __init__(self, part: Part, mixture: Mixture) -> None:
        self._part, self._mixture = part, mixture
        counted = [(mixture.copies(id), id, size) for id, size in zip(part.ids, part.sizes, strict=True)]
        self.ids = tuple(id for copies, id, _ in counted for _ in range(copies))
        self.sizes = tuple(size for copies, _, size in counted for _ in range(copies))
        self.documents, self.bytes = len(self.ids), sum(self.sizes)
        if not self.ids:
            raise ConfigError("reading.weights leave no training text.", fix="Give larger weights.")

    def __iter__(self) -> Iterator[Document]:
        for document in self._part:
            for _ in range(self._mixture.copies(document.id)):
                yield document
