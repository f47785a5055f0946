"""What the serving benchmark measures, of which models, against which goals. Every number that is a choice is here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "serve"
WORK = ROOT / "data" / "bench-serve"  # models and logs; git ignores data/
PEERS_PYTHON = ROOT / ".venv-serve-peers" / "bin" / "python"

THREADS = (1, 2)
ROUNDS = 3
PROMPT, LONG_PROMPT = 128, 500  # tokens of a prompt of which the answer is timed, and of one that is timed itself
NEW = 48  # tokens of an answer
TOGETHER = (1, 8, 32)  # requests


class Contender(NamedTuple):
    """One library in one precision; ``against`` is the contender of bimo that it is compared with."""

    library: str
    precision: str
    against: str
    bits: float  # of a weight in memory, scales included

    @property
    def name(self) -> str:
        """Such as ``llama.cpp Q8_0``."""
        return f"{self.library} {self.precision}"


BF16, INT8 = "bimo bfloat16", "bimo int8"
CONTENDERS = (
    Contender("bimo", "bfloat16", "", 16),
    Contender("llama.cpp", "BF16", BF16, 16),
    Contender("transformers", "bfloat16", BF16, 16),
    Contender("bimo", "int8", "", 8.5),
    Contender("llama.cpp", "Q8_0", INT8, 8.5),
)

# (library, what is measured) -> how many times its speed bimo should have
GOALS = {
    **{("llama.cpp BF16", case): goal for case, goal in (("1", 1.0), ("8", 1.2), ("32", 1.2), ("prompt", 1.2))},
    **{("transformers bfloat16", case): 3.0 for case in ("1", "8", "32", "prompt")},
    **{("llama.cpp Q8_0", case): 1.0 for case in ("1", "8", "32", "prompt")},
}
COLD_START_GOAL = 5.0  # seconds, of the larger model

# The smaller model, trained for a moment on a novel: speed does not ask how well it learned.
SMALLER = {
    "model.width": 384,
    "model.layers": 12,
    "model.heads": 6,
    "model.kv_heads": 6,
    "model.mlp_width": 1024,
    "model.context": 1024,
    "model.tie_embeddings": "true",
    "tokenizer.vocab_size": 8192,
    "batch.size": 4,
}
MODELS = ("135M", "25M")
