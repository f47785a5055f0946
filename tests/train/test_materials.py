"""A tokenizer is learned from all of a small text, and from a sample from all over a large one."""

from __future__ import annotations

import pytest

from bimo.train import materials


def test_a_sample_comes_from_all_over_and_is_the_same_again() -> None:
    texts = [f"{number:04}" * 2500 for number in range(200)]  # of 10,000 characters, five pieces
    drawn = [*materials._sampled(texts, 0.25)]
    assert drawn == [*materials._sampled(texts, 0.25)]
    assert 0.2 * 1000 < len(drawn) < 0.3 * 1000 and {len(piece) for piece in drawn} == {materials.PIECE}
    parts = [sum(int(piece[:4]) // 50 == part for piece in drawn) for part in range(4)]
    assert min(parts) > 0.15 * 250, parts


@pytest.mark.parametrize("text", ["", "short", "三国" * 1500])
def test_a_share_of_one_draws_everything(text: str) -> None:
    assert "".join(materials._sampled([text], 1.0)) == text
