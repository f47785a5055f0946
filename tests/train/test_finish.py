"""What is measured at the end of a run, and how much of it where time is short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bimo.run import Run
from bimo.text.document import Document
from bimo.train import forecast
from bimo.train.finish import EvenSample
from bimo.train.pretrain import train


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_sample_has_its_share_of_the_bytes(sizes: list[int], share: float) -> None:
    documents = [Document(str(number), "x" * size, "a.txt") for number, size in enumerate(sizes)]
    sample = EvenSample(documents, share)
    found = [document.id for document in sample]
    assert found and found == [document.id for document in sample] and found == sorted(found, key=int)
    missed = share * sum(sizes) - sum(sizes[int(name)] for name in found)
    assert abs(missed) <= max(sizes)
    if share == 1.0:
        assert len(found) == len(sizes)


def test_a_short_budget_measures_a_part_of_the_held_out_text(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(forecast, "FEWEST_SCORED", 10)
    monkeypatch.setattr(forecast, "SCORING_SHARE", 1e-4)
    config = {**tiny, "steps": 8, "budget": "60s"}
    run = train(text_folder, None, tmp_path / "run", config=config, quiet=True)
    lineage = Run.open(run.path).read_lineage()
    assert 0 < lineage["plan"]["test_share"] < 1
    assert any(choice["key"] == "held-out text" for choice in lineage["plan"]["choices"])
    assert lineage["metrics"]["test_bits_per_byte"]["value"] > 0
