"""The one evaluator: bits per byte of held-out documents for every model, bimo's too, computed in the same way.

Each document is read alone, from its first token to the token that ends it, in windows of the context that do not
overlap, except that the last one is full too; float32; every label scored once. bimo's folder is loaded by stock
transformers here, not by bimo.

    python -m benchmarks.peers.evaluate --kind hf --model FOLDER --data FOLDER --part test --shape JSON
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

ROWS = 16
MOST_TOKENS = 300_000  # of a longer part every n-th document is read, the same for every model


def windows(ids: np.ndarray[Any, Any], eos: int, context: int) -> list[tuple[np.ndarray[Any, Any], int]]:
    """(window, number of labels at its end that count) of one document without its end-of-text ids."""
    tokens = np.concatenate(([eos], ids, [eos])).astype(np.int64)
    labels, found, begin, done = len(tokens) - 1, [], 0, 0
    while done < labels:
        end = min(begin + context, labels)
        found.append((tokens[begin : end + 1], end - done))
        done = end
        begin = min(begin + context, max(0, labels - context))
    return found


def chosen_documents(stream: np.ndarray[Any, Any], eos: int) -> list[int]:
    """The numbers of the documents that are read: all, or an even sample of a long part."""
    documents = int((stream == eos).sum())
    return list(range(0, documents, max(1, math.ceil(len(stream) / MOST_TOKENS))))


def bits_per_byte(
    logits: Callable[[Tensor], Tensor],
    stream: np.ndarray[Any, Any],
    document_bytes: list[int],
    eos: int,
    context: int,
) -> dict[str, Any]:
    """Bits per byte of source text.

    Args:
        logits: from ids (B, T) to scores (B, T, V).
        stream: ids of the documents, each after an end-of-text id (N,).
        document_bytes: UTF-8 bytes of each document's text.
    """
    starts = np.flatnonzero(stream == eos)
    ends = np.append(starts[1:], len(stream))
    chosen = chosen_documents(stream, eos)
    todo = [one for number in chosen for one in windows(stream[starts[number] + 1 : ends[number]], eos, context)]
    todo.sort(key=lambda window: -len(window[0]))
    nats, labels = 0.0, 0
    with torch.inference_mode():
        for first in range(0, len(todo), ROWS):
            group = todo[first : first + ROWS]
            length = max(len(window) for window, _ in group)
            rows = torch.full((len(group), length), eos, dtype=torch.long)
            counted = torch.zeros((len(group), length - 1), dtype=torch.bool)
            for row, (window, last) in enumerate(group):
                rows[row, : len(window)] = torch.from_numpy(window)
                counted[row, len(window) - 1 - last : len(window) - 1] = True
            scores = logits(rows[:, :-1])[counted].float()
            nats += F.cross_entropy(scores, rows[:, 1:][counted], reduction="sum").item()
            labels += int(counted.sum())
    size = sum(document_bytes[number] for number in chosen)
    return {
        "bits_per_byte": nats / math.log(2) / size,
        "nats_per_token": nats / labels,
        "tokens": labels,
        "bytes": size,
        "documents": len(chosen),
    }


def scorer(kind: str, folder: Path, shape: dict[str, int]) -> Callable[[Tensor], Tensor]:
    """The model in a folder as a function from ids to logits, float32."""
    if kind == "hf":
        from transformers import AutoModelForCausalLM

        causal = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return lambda ids: causal(ids, use_cache=False).logits
    model: torch.nn.Module
    if kind == "nano":
        from benchmarks.peers.nano import nano_of

        model = nano_of(shape)
    else:
        from litgpt.model import GPT

        from benchmarks.peers.litgpt import config_of

        model = GPT(config_of(shape))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def main() -> None:
    """Print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("hf", "nano", "litgpt"), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--shape", required=True)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    meta = json.loads((given.data / "meta.json").read_text(encoding="utf-8"))
    shape = {**json.loads(given.shape), "vocab_size": meta["vocab_size"]}
    stream = np.fromfile(given.data / f"{given.part}.bin", np.dtype("<u2"))
    sizes = meta["parts"][given.part]["document_bytes"]
    score = scorer(given.kind, given.model, shape)
    print(json.dumps(bits_per_byte(score, stream, sizes, meta["eos_id"], shape["context"])))


if __name__ == "__main__":
    main()
