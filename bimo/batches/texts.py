"""Texts of any length as batches without waste: sorted by length, so that a batch pads next to nothing.

Shapes: B texts of a batch, T the tokens of its longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from bimo.tokenizer.tokenizer import Tokenizer

TOKENS = 4096  # of a batch, padding included: enough for a core to be busy, little memory


@dataclass(frozen=True)
class TextBatch:
    """Some texts, one a row.

    Attributes:
        places: (B,) where each stood among all texts.
        input_ids: int64 (B, T).
        segment_ids: int32 (B, T), 0 in a text and 1 in what pads it.
        first, last: bool (B, T), the first and the last token of each text.
    """

    places: list[int]
    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor


def encoded(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> list[list[int]]:
    """The ids of each text with those that stand around it, ``longest`` together; the end of a longer text is cut."""
    before, after = tokenizer.around
    room = longest - len(before) - len(after)
    return [[*before, *text[:room], *after] for text in tokenizer.encode_batch(texts)]


def batches_of(texts: Sequence[Sequence[int]], tokens: int = TOKENS) -> Iterator[TextBatch]:
    """All texts, none of them empty, the longest first, in batches of at most ``tokens`` positions or one text."""
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    while order:
        longest = len(texts[order[0]])
        places, order = order[: max(1, tokens // longest)], order[max(1, tokens // longest) :]
        sizes = np.array([len(texts[place]) for place in places])
        ids = np.zeros((len(places), longest), dtype=np.int64)
        for row, place in enumerate(places):
            ids[row, : sizes[row]] = texts[place]
        steps = np.arange(longest)
        masks = (
            (steps >= sizes[:, None]).astype(np.int32),
            np.tile(steps == 0, (len(places), 1)),
            steps == sizes[:, None] - 1,
        )
        yield TextBatch(places, torch.from_numpy(ids), *map(torch.from_numpy, masks))
