"""The pace of a training: what is read for each label counts, not the labels alone."""

from __future__ import annotations

import pytest

from bimo.train.loop import Progress
from bimo.train.record import Pace


def test_tokens_that_are_read_make_the_speed() -> None:
    pace = Pace(peak_share=0.001, read=18.0)
    assert pace.after(Progress(steps=10)) == {}
    record = pace.after(Progress(steps=10, step=1, tokens=16, seconds=2.0))
    assert record["tokens_per_second"] == pytest.approx(18 * 16 / 2)
    assert record["utilisation"] == pytest.approx(0.144)
