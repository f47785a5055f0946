"""The constants of the forecast are those that the cells were made with."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from typing import Any

import pytest

from benchmarks import scaling
from bimo.train.anchor import Anchor
from bimo.train.predict import LAW, predict

TRUE = replace(
    LAW, floor=0.72, size=0.1, data=0.16, begins=1.1, copying=(0.4, 1.3, 0.3), hardness=(0.15, 0.8)
)  # fmt: skip


def cell(anchor: Anchor, width: int, layers: int, tokens: int) -> dict[str, Any]:
    """One of the grid, with exactly what ``TRUE`` foresees."""
    made = {"width": width, "layers": layers, "anchor": asdict(anchor), "metrics": {"tokens": tokens}}
    value = predict(*scaling._facts(made), TRUE).value
    return made | {"metrics": {"tokens": tokens, "test_bits_per_byte": {"value": value}}}


def test_the_fit_finds_the_law_that_made_the_cells() -> None:
    texts = [
        Anchor(bits, 3_000_000, 3.0, scaling.VOCABULARY, copying=copying)
        for bits, copying in itertools.product((1.4, 1.8, 2.2), (0.75, 0.9, 0.99))
    ]
    sizes = [*scaling.SIZES, *{one[1:] for one in scaling.EXTREMES}]
    found = scaling.fit([cell(text, *size) for text, size in itertools.product(texts, sizes)])
    for name in (*scaling.FITTED, *scaling.PAIRED):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.02), name
    assert found.spread < 1e-4
    assert found.parameters == pytest.approx((0.229, 11.4), rel=0.01) and found.tokens == (0.4, 6.0)


def test_every_cell_has_a_file_of_its_own() -> None:
    paths = [scaling.path_of(*one) for one in scaling.grid()]
    assert len(set(paths)) == len(paths)
