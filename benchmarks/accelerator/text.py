"""Text that is there: Python's library and what is installed, in a vocabulary of its commonest words, else bytes."""

from __future__ import annotations

import collections
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = re.compile(rb" ?[A-Za-z_]+|[0-9]| ?[^A-Za-z_0-9\s]+|\s+")
FIRST_WORD = 257  # 0 starts a file, 1 to 256 are bytes
HELD_OUT = 20  # every so manieth file
HELD_OUT_ROWS, ROWS_AT_ONCE = 256, 8


class Text:
    """Ids of the training files and of the held-out ones, each file after a 0."""

    def __init__(self, train: np.ndarray[Any, Any], held_out: np.ndarray[Any, Any]) -> None:
        self.train, self.held_out = train, held_out

    def write(self, folder: Path) -> None:
        """The ids as the peers' programs read them."""
        for name, ids in {"train": self.train, "validation": self.held_out}.items():
            ids.astype("<u2").tofile(folder / f"{name}.bin")

    def held_out_nats(self, logits: Callable[[Tensor], Tensor], length: int, device: str) -> float:
        """Mean nats a token of held-out rows that do not overlap, the same for every model."""
        count = min(HELD_OUT_ROWS, (len(self.held_out) - 1) // length)
        rows = np.stack([self.held_out[row * length : (row + 1) * length + 1] for row in range(count)])
        total = 0.0
        with torch.no_grad():
            for window in torch.from_numpy(rows.astype(np.int64)).to(device).split(ROWS_AT_ONCE):
                with torch.autocast(device, torch.bfloat16):
                    scores = logits(window[:, :-1])
                total += F.cross_entropy(scores.flatten(0, 1).float(), window[:, 1:].flatten(), reduction="sum").item()
        return total / (count * length)


def read_text(vocabulary: int, most_bytes: int = 24_000_000) -> Text:
    """The standard library of this Python, then the installed packages in the order of their names; tests left out."""
    files: list[list[bytes]] = []
    for path in _sources():
        content = path.read_bytes()
        files.append(PIECE.findall(content))
        most_bytes -= len(content)
        if most_bytes < 0:
            break
    counts: collections.Counter[bytes] = collections.Counter()
    for number, pieces in enumerate(files):
        if number % HELD_OUT:
            counts.update(pieces)
    words = {word: FIRST_WORD + i for i, (word, _) in enumerate(counts.most_common(vocabulary - FIRST_WORD))}

    def encode(pieces: list[bytes]) -> list[int]:
        ids = [0]
        for piece in pieces:
            known = words.get(piece)
            ids += [known] if known is not None else [1 + byte for byte in piece]
        return ids

    parts: tuple[list[int], list[int]] = ([], [])
    for number, pieces in enumerate(files):
        parts[number % HELD_OUT == 0].extend(encode(pieces))
    return Text(*(np.array(part, dtype=np.uint16) for part in parts))


def _sources() -> Iterator[Path]:
    places = sysconfig.get_paths()
    for root in (Path(places["stdlib"]), Path(places["purelib"])):
        for path in sorted(root.rglob("*.py")):
            below = path.relative_to(root).parts
            if not {"site-packages", "dist-packages", "test", "tests"} & set(below) and path.is_file():
                yield path
