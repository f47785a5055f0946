"""Text that every Python brings: its standard library, in a vocabulary of its commonest words, bytes for the rest."""

from __future__ import annotations

import collections
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = re.compile(rb" ?[A-Za-z_]+|[0-9]| ?[^A-Za-z_0-9\s]+|\s+")
FIRST_WORD = 257  # 0 starts a file, 1 to 256 are bytes
HELD_OUT = 20  # every so manieth file
HELD_OUT_ROWS = 256


class Text:
    """Ids of the training files and of the held-out ones, each file after a 0."""

    def __init__(self, train: np.ndarray[Any, Any], held_out: np.ndarray[Any, Any]) -> None:
        self.train, self.held_out = train, held_out

    def write(self, folder: Path) -> None:
        """The training ids as the peers' programs read them."""
        self.train.astype("<u2").tofile(folder / "train.bin")

    def rows(self, generator: np.random.Generator, count: int, length: int) -> np.ndarray[Any, Any]:
        """Rows at random places, with one id more than ``length`` (count, length + 1)."""
        starts = generator.integers(len(self.train) - length - 1, size=count)
        return np.stack([self.train[start : start + length + 1] for start in starts]).astype(np.int64)

    def held_out_nats(self, logits: Callable[[Tensor], Tensor], length: int, device: str) -> float:
        """Mean nats a token of held-out rows that do not overlap, the same for every model."""
        count = min(HELD_OUT_ROWS, (len(self.held_out) - 1) // length)
        total = 0.0
        with torch.no_grad():
            for row in range(count):
                ids = self.held_out[row * length : (row + 1) * length + 1].astype(np.int64)
                window = torch.from_numpy(ids)[None].to(device)
                with torch.autocast(device, torch.bfloat16):
                    scores = logits(window[:, :-1])
                total += F.cross_entropy(scores[0].float(), window[0, 1:]).item()
        return total / count


def read_text(vocabulary: int, most_bytes: int = 40_000_000) -> Text:
    """The standard library of this Python, tests and installed packages left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in root.rglob("*.py") if not {"site-packages", "test", "tests"} & set(path.parts))
    files: list[bytes] = []
    for path in paths:
        files.append(path.read_bytes())
        most_bytes -= len(files[-1])
        if most_bytes < 0:
            break
    counts: collections.Counter[bytes] = collections.Counter()
    for number, content in enumerate(files):
        if number % HELD_OUT:
            counts.update(PIECE.findall(content))
    words = {word: FIRST_WORD + i for i, (word, _) in enumerate(counts.most_common(vocabulary - FIRST_WORD))}

    def encode(content: bytes) -> list[int]:
        ids = [0]
        for piece in PIECE.findall(content):
            known = words.get(piece)
            ids += [known] if known is not None else [1 + byte for byte in piece]
        return ids

    parts: tuple[list[int], list[int]] = ([], [])
    for number, content in enumerate(files):
        parts[number % HELD_OUT == 0].extend(encode(content))
    return Text(*(np.array(part, dtype=np.uint16) for part in parts))
