"""What held-out answers cost a model: nats of each label, an example at a time.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bimo.evaluate.intervals import bits_per_byte, perplexity
from bimo.evaluate.likelihood import DocumentScore
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.examples import Example
from bimo.tune.packing import laid_out, pack

CHUNK = 256  # labels whose logits are held at once


def answer_bytes(example: Example, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of what is learned; the token that ends it has none."""
    control = set(tokenizer.special.values())
    learned = example.ids[example.counts].tolist()
    return sum(len(tokenizer.token_bytes(id)) for id in learned if id not in control)


@torch.no_grad()
def score_answers(
    model: Any, examples: Sequence[Example], tokenizer: Tokenizer, *, length: int, batch_size: int = 1
) -> list[DocumentScore]:
    """The score of each example, in order: its learned ids, given all that stands before them."""
    device = model.output_weight.device
    rows = pack([example.size for example in examples], length)
    found: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
    for at in range(0, len(rows), batch_size):
        places = rows[at : at + batch_size]
        batch = laid_out(examples, places, length).to(device)
        hidden = model.hidden(batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
        hidden, labels = hidden[batch.loss_mask], batch.labels[batch.loss_mask]
        weight = model.output_weight.to(hidden.dtype)
        parts = zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True)
        nats = [F.cross_entropy(F.linear(part, weight).float(), target, reduction="none") for part, target in parts]
        owners = (batch.positions.new_tensor(range(len(places)))[:, None] << 32) + batch.segment_ids
        of_label = owners[batch.loss_mask].cpu().numpy()
        values = torch.cat(nats).cpu().numpy() if nats else np.zeros(0, dtype=np.float32)
        for row, inside in enumerate(places):
            for segment, place in enumerate(inside):
                found[place] = values[of_label == (row << 32) + segment]
    return [
        DocumentScore(str(example.row), answer_bytes(example, tokenizer), found[place])
        for place, example in enumerate(examples)
    ]


def answer_figures(scores: Sequence[DocumentScore]) -> dict[str, Any]:
    """Bits per byte of the answers and perplexity of their tokens, each with its interval."""
    if not any(score.bytes for score in scores):
        return {}
    return {"test_bits_per_byte": asdict(bits_per_byte(scores)), "test_perplexity": asdict(perplexity(scores))}
