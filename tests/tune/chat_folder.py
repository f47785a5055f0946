"""A tiny chat model as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch

from bimo.models import llama, save_model
from bimo.tokenizer.tokenizer import Tokenizer


def chat_folder(folder: Path, tokenizer: Tokenizer) -> Path:
    """Write one with fresh weights, which knows the tokenizer's chat template."""
    folder.mkdir()
    tokenizer.save(folder)
    config = llama.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, head_dim=8, max_position_embeddings=160, model_type="qwen3",
        eos_token_id=tokenizer.eos_id, bos_token_id=tokenizer.eos_id,
    )  # fmt: skip
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    save_model(model, folder)
    return folder
