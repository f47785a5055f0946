"""What the text benchmark measures, at which sizes, against which goals. Every number that is a choice is here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "text"
WORK = ROOT / "data" / "bench-text"  # texts, packages, logs; git ignores data/
PEERS_PYTHON = ROOT / ".venv-text-peers" / "bin" / "python"
WORKERS = min(2, os.cpu_count() or 1)

PART_BYTES = 16_000_000  # of the files of JSON lines
VOCABULARIES = (2_048, 16_384)
HELD_OUT_BYTES = 300_000  # of each text that the effect is judged by

SPEED_GOALS = {"exact": 25.0, "default": 10.0, "html": 10.0}  # megabytes a second
SHAPE = ("model.width=128", "model.layers=4", "tokenizer.vocab_size=2048")  # of the models: the same on every machine

PEER_GOAL = 20.0  # times its speed
MEMORY_GOAL, MEMORY_AT = 2e9, 20e9  # bytes, for so many bytes of input
TOKENS_GOAL = 1.0  # times the library's speed


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        megabytes: of plain English and, at most, of HTML.
        repeats: runs of each form; the median counts.
        gigabytes: of the larger of the two runs that memory is measured on; the smaller has a quarter.
        token_megabytes: that are tokenised.
        count: labelled samples of each kind and language.
        seeds: of the models.
        budget: of each model, as `bimo train` takes it.
        effect_megabytes: that each model may learn from, at most.
    """

    name: str
    megabytes: float
    repeats: int
    gigabytes: float
    token_megabytes: float
    count: int
    seeds: tuple[int, ...]
    budget: str
    effect_megabytes: float

    def result(self, name: str) -> Path:
        """Where a finished cell is kept; those of the smallest scale, which only says whether it runs, outside git."""
        if self.name == "tiny":
            return WORK / "tiny" / f"{name}.json"
        return RESULTS / f"{'' if self.name == 'full' else self.name + '-'}{name}.json"


FULL = Scale("full", 200, 3, 4, 25, 200, (0, 1, 2), "2000k-tokens", 20)
QUICK = Scale("quick", 20, 1, 0.2, 5, 40, (0,), "300k-tokens", 5)
TINY = Scale("tiny", 0.6, 1, 0.002, 0.3, 2, (0,), "60k-tokens", 0.3)
