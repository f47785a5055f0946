"""The decoding loop: the ids of one prompt in, the ids of several continuations out.

Shape legend: B rows still running, P prompt length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bimo.device import seed_for
from bimo.errors import UsageError
from bimo.generate.cache import KVCache
from bimo.generate.sampling import History, Sampling, Uniforms, next_token

if TYPE_CHECKING:
    from bimo.models import Model

CHUNK = 256  # positions computed at once: bounds the memory that a long text needs


class Step(NamedTuple):
    """One new token of one row.

    Attributes:
        logprob: its natural log-probability as the model gives it, before any sampling rule.
        finish_reason: None while the row goes on, "stop" after an end token, "length" at a limit.
    """

    row: int
    token: int
    logprob: float
    finish_reason: str | None


def row_seeds(seed: int, n: int) -> list[int]:
    """The seed of each of ``n`` rows; the first row's is ``seed`` itself, so that it can be repeated alone."""
    return [seed, *(seed_for(seed, "row", row) % 2**32 for row in range(1, n))]


def room_for(model: Model, prompt_length: int, max_new_tokens: int) -> int:
    """How many tokens fit behind a prompt, at most ``max_new_tokens``.

    Raises:
        UsageError: the prompt is empty or fills the model's context.
    """
    context = model.config.max_position_embeddings
    if prompt_length < 1:
        raise UsageError("The prompt has no tokens.", fix="Begin with at least the token that starts a document.")
    if prompt_length >= context:
        expected = f"fewer than {context} tokens, the model's context"
        raise UsageError("The prompt is too long.", expected=expected, got=f"{prompt_length} tokens")
    return min(max_new_tokens, int(context) - prompt_length)


@torch.inference_mode()
def generate_ids(
    model: Model,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    eos_ids: Collection[int] = (),
    stopped: Collection[int] = (),
) -> Iterator[Step]:
    """Continue ``prompt`` once for each seed, all rows in one batch; the prompt is computed once.

    Args:
        model: a model in evaluation mode.
        seeds: one a row; a row depends on its own seed, not on the others.
        eos_ids: tokens that end a row; such a token is the row's last step.
        stopped: rows the caller wants no more of; read after every step, so the caller may add to it meanwhile.

    Yields:
        One step for each running row in turn, until every row has finished.

    Raises:
        UsageError: the prompt does not fit the model's context.
        ModelError: the model computes something that is not a number.
    """
    room = room_for(model, len(prompt), sampling.max_new_tokens)
    device = model.output_weight.device
    rows = list(range(len(seeds)))
    cache = new_cache(model, len(prompt) + room)
    logits = prefill(model, prompt, cache).expand(len(rows), -1)  # (B, V)
    if len(rows) > 1:
        cache.select([0] * len(rows))
    uniforms = [Uniforms(seed) for seed in seeds]
    histories = [History(prompt) if sampling.looks_back else None for _ in seeds]
    for step in range(room):
        table = logits.cpu().numpy()
        chosen = [
            next_token(table[place], sampling, history=histories[row], uniform=uniforms[row][step])[0]
            for place, row in enumerate(rows)
        ]
        given = torch.tensor(chosen, device=device)[:, None]  # (B, 1)
        logprobs = (logits.gather(1, given).squeeze(1) - logits.logsumexp(-1)).tolist()
        running = []
        for place, (row, token, logprob) in enumerate(zip(rows, chosen, logprobs, strict=True)):
            if (history := histories[row]) is not None:
                history.add(token)
            finish_reason = "stop" if token in eos_ids else "length" if step == room - 1 else None
            yield Step(row, token, logprob, finish_reason)
            if finish_reason is None and row not in stopped:
                running.append(place)
        if not running:
            return
        if len(running) < len(rows):
            rows = [rows[place] for place in running]
            cache.select(running)
            given = given[running]
        logits = model(given, cache=cache)[:, -1].float()


def prefill(model: Model, prompt: Sequence[int], cache: KVCache) -> Tensor:
    """Fill a cache of one row with ``prompt`` and return the logits of the token after it, (1, V) in float32."""
    ids = torch.tensor([prompt], device=model.output_weight.device)  # (1, P)
    for chunk in ids.split(CHUNK, dim=1):
        hidden = model.hidden(chunk, cache=cache)
    return model.logits(hidden[:, -1:])[:, -1].float()


def new_cache(model: Model, capacity: int) -> KVCache:
    """An empty cache of one row for ``model``."""
    config, weight = model.config, model.output_weight
    return KVCache(
        layers=config.num_hidden_layers,
        batch=1,
        kv_heads=config.num_key_value_heads,
        capacity=capacity,
        head_dim=config.head_dim,
        dtype=model.compute_dtype or weight.dtype,
        device=weight.device,
    )
