"""How likely a model finds given tokens, one number for each of them.

Shape legend: N tokens that are scored, T positions computed at once, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from bimo.generate.generate import CHUNK, new_cache

if TYPE_CHECKING:
    from bimo.models import Model


@torch.inference_mode()
def score_ids(model: Model, ids: Sequence[int]) -> tuple[list[float], list[int]]:
    """Score every token but the first, given all before it; texts longer than the context go through in windows.

    Each window begins half a context before its first new token, so that this token too has something before it.

    Args:
        model: a model in evaluation mode.
        ids: N + 1 tokens.

    Returns:
        Natural log-probabilities and ranks (1 = the likeliest token), N of each.
    """
    context = model.config.max_position_embeddings
    given = torch.tensor([ids[:-1]], device=model.output_weight.device, dtype=torch.long)  # (1, N)
    labels = torch.tensor(ids[1:], device=given.device, dtype=torch.long)  # (N,)
    logprobs: list[float] = []
    ranks: list[int] = []
    while (done := len(logprobs)) < len(labels):
        begin = 0 if done == 0 else done - context // 2
        end = min(begin + context, len(labels))
        cache = new_cache(model, end - begin)
        for start in range(begin, end, CHUNK):
            stop = min(start + CHUNK, end)
            hidden = model.hidden(given[:, start:stop], cache=cache)
            new = max(start, done)
            if new >= stop:
                continue
            logits = model.logits(hidden[0, new - start :]).float()  # (T, V)
            picked = logits.gather(1, labels[new:stop, None])  # (T, 1)
            logprobs += (picked.squeeze(1) - logits.logsumexp(-1)).tolist()
            ranks += ((logits > picked).sum(-1) + 1).tolist()
    return logprobs, ranks
