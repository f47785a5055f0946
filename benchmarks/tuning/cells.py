"""What the tuning benchmark compares: models, data, amounts, peers, goals. Every number that is a choice lives here."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "tune"
WORK = ROOT / "data" / "bench-tune"  # models, rows and ids, logs; git ignores data/

THREADS = int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1))
ROUNDS = 3
FORMS = ("documented", "tuned", "float32")
MEASURED_FORMS = FORMS[:2]
SPEED_GOAL, MEMORY_GOAL = 1.5, 0.7  # times the peer's examples a second; of its peak memory
RANK, ALPHA = 16, 32  # of LoRA
BETA = 0.1  # of DPO
NEVER = 1_000_000  # steps between checkpoints, and validations before the last


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        task: a name of ``bimo.tune.tasks.TASKS``; the peer's program goes by it too.
        model: a name that ``bimo import`` knows.
        data: a name that ``bimo.text.labelled`` knows.
        rows: of the training data that bimo is given, from the first; it holds a few of them out to watch training.
        tested: rows of the test data, on which everybody's final weights are measured.
        length: tokens of an example at most, and of a row of packed ones.
        examples: of a step; bimo packs whole rows, and takes the rows that have about so many.
        learning_rate: the peak, for everybody.
    """

    name: str
    task: Literal["chat", "classify", "prefer"]
    model: str
    data: str
    rows: int
    tested: int
    length: int
    examples: int
    learning_rate: float
    lora: bool = False

    def command(self, batch: int, steps: int) -> list[str]:
        """The words of ``bimo tune`` after model, data and folder: the shape of the work, everything else is bimo's."""
        settings = {
            "model.context": self.length,
            "batch.size": batch,
            "optimizer.learning_rate": self.learning_rate,
            "optimizer.adamw_learning_rate": self.learning_rate,
            "reading.test": 0,  # one evaluator measures everybody, on other rows
            "evaluate_every": NEVER,
            "checkpoint_every": NEVER,
            "steps": steps,
            "threads": THREADS,
        }
        words = [f"{key}={value}" for key, value in settings.items()]
        return ["--set", *words, *(("--lora", "--rank", str(RANK)) if self.lora else ())]


CELLS = {
    cell.name: cell
    for cell in (
        Cell("sft-full", "chat", "smollm2", "alpaca-en", 200, 100, 512, 16, 5e-5),
        Cell("sft-lora", "chat", "smollm2", "alpaca-en", 200, 100, 512, 16, 5e-4, lora=True),
        Cell("classify", "classify", "minilm", "sarcasm", 3000, 1000, 128, 16, 1e-4),
        Cell("classify-lora", "classify", "minilm", "sarcasm", 3000, 1000, 128, 16, 1e-3, lora=True),
        Cell("dpo", "prefer", "smollm2", "dpo-en", 100, 40, 1024, 8, 5e-5, lora=True),
    )
}
# A few small steps of the same, to see that everything works; what they measure is kept apart and not in the page.
QUICK_SIZE = {"chat": (24, 4), "classify": (400, 16), "prefer": (16, 2)}  # rows, and examples of a step
QUICK = {
    f"quick-{name}": dataclasses.replace(
        cell,
        name=f"quick-{name}",
        rows=QUICK_SIZE[cell.task][0],
        examples=QUICK_SIZE[cell.task][1],
        tested=20 if cell.task == "classify" else 4,
    )
    for name, cell in CELLS.items()
}
EVERY = {**CELLS, **QUICK}
PEERS = {
    "sft-full": "TRL `SFTTrainer`",
    "sft-lora": "TRL `SFTTrainer`, PEFT",
    "classify": "Hugging Face `Trainer`",
    "classify-lora": "Hugging Face `Trainer`, PEFT",
    "dpo": "TRL `DPOTrainer`, PEFT",
}
