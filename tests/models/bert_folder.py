"""A folder as the published encoders are: a small BERT with its pooler and its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.tokenizer.wordpiece import wordpiece


def bert_folder(folder: Path, *, pooling: str = "mean_tokens", **changes: int) -> Path:
    """Written by transformers, every weight away from where it started."""
    from transformers import BertConfig, BertModel

    tokenizer = wordpiece()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 20}
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=40, **sizes | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True, "dim": 24}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    return folder
