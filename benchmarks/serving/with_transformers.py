"""Hugging Face ``generate`` with its defaults."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.serving.answering import Answer


def load(folder: Path, precision: str, threads: int) -> tuple[Answer, int]:
    """The run in ``folder``."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision)).eval()

    def answer(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        limits = {"min_new_tokens": new, "max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        assert model.generate(ids, attention_mask=torch.ones_like(ids), **limits).shape[1] == ids.shape[1] + new

    return answer, model.config.vocab_size
