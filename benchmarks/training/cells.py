"""What is compared: texts, sizes, peers, goals. Every number of the comparison that is a choice lives here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "train"
CACHE = ROOT / "data" / "bench-train"  # ids and compiled code; git ignores data/
TUNED = RESULTS / "tuned.json"

CONTEXT, VOCABULARY = 256, 2048
FORMS = ("default", "tuned")
LADDER_STEP, LADDER_BEGIN = 1.25**0.5, 1 / 16  # of the peer's seconds
GOALS = {"default": 1 / 10, "tuned": 1 / 4}  # of the peer's wall-clock
SPEED_GOALS = {"default": 4.0, "tuned": 1.7}  # times the peer's tokens a second
MEMORY_GOAL = 0.6  # of the Trainer's peak memory
LEARNING_RATES, BATCHES = (1e-3, 2e-3, 4e-3), (8, 16)  # that the tuned forms choose from, on the second cell
THREADS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Cell:
    """One size of the comparison.

    Attributes:
        corpora: names that ``bimo train --data`` knows.
        seconds: wall-clock of a peer.
        gpt2: width, layers, heads of the GPT-2-shaped peers; their embeddings are tied.
        llama: shape of bimo's model and of the Llama-shaped peers; their embeddings are two matrices.
    """

    name: str
    corpora: tuple[str, ...]
    seconds: float
    seeds: tuple[int, ...]
    gpt2: dict[str, int]
    llama: dict[str, int]

    def shape(self, peer: str) -> dict[str, int]:
        """The shape that a peer is given, the context included."""
        return {**(self.gpt2 if PEERS[peer].gpt2 else self.llama), "context": CONTEXT}

    def ladder(self) -> list[float]:
        """Budgets in seconds, from a sixteenth of the peer's time to beyond it."""
        rungs = [self.seconds * LADDER_BEGIN]
        while rungs[-1] < self.seconds:
            rungs.append(rungs[-1] * LADDER_STEP)
        return [round(rung, 1) for rung in rungs]

    def overrides(self) -> list[str]:
        """What ``bimo train --set`` pins; everything else is the plan's."""
        pinned = [f"model.{key}={value}" for key, value in self.llama.items()]
        return [
            *pinned,
            f"model.context={CONTEXT}",
            f"tokenizer.vocab_size={VOCABULARY}",
            f"threads={THREADS}",
        ]


def _llama(width: int, layers: int, heads: int, mlp_width: int) -> dict[str, int]:
    return {"width": width, "layers": layers, "heads": heads, "kv_heads": heads, "mlp_width": mlp_width}


# GPT-2 ties its embeddings and has about 12 x layers x width^2 parameters besides; ours has two matrices and so fewer
# or smaller layers, that the whole is not larger than the smallest peer.
CELLS = {
    cell.name: cell
    for cell in (
        Cell(
            "shakespeare", ("shakespeare",), 180, (0, 1, 2),
            gpt2={"width": 128, "layers": 5, "heads": 2}, llama=_llama(128, 4, 2, 288),
        ),
        Cell(
            "sanguo", ("sanguo",), 300, (0, 1, 2),
            gpt2={"width": 256, "layers": 4, "heads": 4}, llama=_llama(256, 3, 4, 768),
        ),
        Cell(
            "mix", ("wiki-en", "boolq-passages", "sotu"), 900, (0,),
            gpt2={"width": 384, "layers": 7, "heads": 6}, llama=_llama(384, 6, 6, 1024),
        ),
    )
}  # fmt: skip
TUNING_CELL, TUNING_SEED = "sanguo", 0


@dataclass(frozen=True)
class Peer:
    """One opponent.

    Attributes:
        title: in the table.
        module: its program in ``benchmarks/peers``.
        family: its ``--family``.
        kind: how the evaluator loads it.
        gpt2: whether it has GPT-2's shape.
        always_compiled: in its default form too.
    """

    title: str
    module: str
    family: str
    kind: str
    gpt2: bool
    always_compiled: bool = False

    def compiles(self, form: str) -> bool:
        """Whether a warm cache makes a difference."""
        return self.always_compiled or form == "tuned"


PEERS = {
    "nano": Peer("nanoGPT-shaped baseline", "nano", "gpt2", "nano", True),
    "hf-gpt2": Peer("Hugging Face `Trainer`, GPT-2", "hf", "gpt2", "hf", True),
    "hf-qwen3": Peer("Hugging Face `Trainer`, Qwen3", "hf", "qwen3", "hf", False),
    "litgpt": Peer("litgpt pretrain, Llama", "litgpt", "llama", "litgpt", False, always_compiled=True),
}
