"""What every peer's program shares: its arguments, the clock that ends it, its rows of ids, and its result.

A peer runs in a process of its own. Its clock starts when that process is spawned; imports, compiling and everything
else count. Learning-rate schedules run over the time limit itself, so that every peer cools down exactly in time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

FLOOR = 0.1  # of the peak learning rate, where a cosine ends


@dataclass
class Session:
    """One peer's run.

    Attributes:
        began: ``time.monotonic()`` when the process was spawned.
        shape: width, layers, heads, mlp_width, context, vocab_size, eos_id.
        learning_rate: None = the form's own.
        batch: rows of a step; None = the form's own.
    """

    began: float
    seconds: float
    data: Path
    out: Path
    form: str
    family: str
    seed: int
    threads: int
    shape: dict[str, int]
    learning_rate: float | None = None
    batch: int | None = None
    marks: dict[str, float] = field(default_factory=dict)
    steps: list[tuple[float, int]] = field(default_factory=list)

    @property
    def tuned(self) -> bool:
        """Whether this is the bf16, compiled form."""
        return self.form == "tuned"

    def now(self) -> float:
        """Seconds since the process was spawned."""
        return time.monotonic() - self.began

    def mark(self, name: str) -> None:
        """Note when something was done."""
        self.marks[name] = round(self.now(), 3)

    def share(self) -> float:
        """How much of the time for training has passed, 0 to 1; it begins after the first step, which may compile."""
        if "first_step" not in self.marks:
            return 0.0
        start = self.marks["first_step"]
        return min(1.0, (self.now() - start) / max(1e-9, self.seconds - start))

    def multiplier(self, warmup: float) -> float:
        """Of the peak learning rate: a linear warm-up over a share of the time, then a cosine to a tenth."""
        share = self.share()
        if share < warmup:
            return max(share, 1e-3) / warmup
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))

    def stepped(self, tokens: int) -> bool:
        """Count a step; True when the next would end after the limit."""
        if not self.steps:
            self.mark("first_step")
        self.steps.append((self.now(), tokens))
        times = [when for when, _ in self.steps[-4:]]
        shortest = min((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
        return self.now() + shortest > self.seconds

    def trained(self) -> None:
        """Note that the final weights are in memory: here the clock of a peer stops."""
        self.mark("trained")

    def steady_tokens_per_second(self) -> float:
        """Over the second half of the steps, so that compiling and warming up are left out."""
        half = self.steps[len(self.steps) // 2 :]
        if len(half) < 2:
            return math.nan
        return sum(tokens for _, tokens in half[1:]) / (half[-1][0] - half[0][0])

    def finish(self, tensors: dict[str, Tensor], parameters: int, embeddings: int, settings: dict[str, Any]) -> None:
        """Write the weights, if there are any to write, and the result."""
        self.out.mkdir(parents=True, exist_ok=True)
        if tensors:
            state = {name: tensor.detach().float().contiguous().clone() for name, tensor in tensors.items()}
            save_file(state, self.out / "model.safetensors", metadata={"format": "pt"})
        result = {
            "parameters": parameters,
            "non_embedding_parameters": parameters - embeddings,
            "steps": len(self.steps),
            "tokens": sum(tokens for _, tokens in self.steps),
            "tokens_per_second": round(self.steady_tokens_per_second(), 1),
            "seconds": self.marks,
            "settings": settings,
            "threads": torch.get_num_threads(),
        }
        (self.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def ids(self, part: str = "train") -> np.ndarray[Any, Any]:
        """The stream of a part, uint16 (N,); every document begins with the end-of-text id."""
        return np.memmap(self.data / f"{part}.bin", np.dtype("<u2"), mode="r")


class Blocks(Dataset[Any]):
    """The stream cut into rows one after the other.

    Args:
        length: ids of a row.
        stride: from one row to the next.
        as_dict: rows as Hugging Face's collator wants them.
    """

    def __init__(self, ids: np.ndarray[Any, Any], length: int, stride: int, *, as_dict: bool) -> None:
        self._ids, self._length, self._stride, self._as_dict = ids, length, stride, as_dict

    def __len__(self) -> int:
        return max(0, (len(self._ids) - self._length) // self._stride + 1)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = torch.from_numpy(self._ids[index * self._stride :][: self._length].astype(np.int64))
        return {"input_ids": row, "labels": row} if self._as_dict else row


def count(model: nn.Module, tables: list[Tensor]) -> tuple[int, int]:
    """All parameters, and those of the embedding tables and the output matrix, each counted once."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, sum(table.numel() for table in {id(table): table for table in tables}.values())


def session_from_arguments(families: tuple[str, ...]) -> Session:
    """Read a peer's command line and set threads and seed."""
    started = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of train.bin and meta.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--began", type=float, default=started, help="time.monotonic() when this process was spawned")
    parser.add_argument("--form", choices=("default", "tuned"), default="default")
    parser.add_argument("--family", choices=families, default=families[0])
    parser.add_argument("--shape", required=True, help="JSON: width, layers, heads, mlp_width, context")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch", type=int)
    values = vars(parser.parse_args())
    meta = json.loads((values["data"] / "meta.json").read_text(encoding="utf-8"))
    values["shape"] = {**json.loads(values["shape"]), **{key: meta[key] for key in ("vocab_size", "eos_id")}}
    session = Session(**values)
    torch.set_num_threads(session.threads)
    torch.manual_seed(session.seed)
    session.mark("imported")
    return session
