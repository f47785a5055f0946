"""A tiny model of random weights, and servers over it and over engines that do as a test tells them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bimo.generate.language_model import LanguageModel, load
from bimo.serve.limits import Limits
from bimo.tokenizer.train import train_tokenizer
from tests.serve.live import Live, ScriptedEngine, serving

TEXT = "To be, or not to be: that is the question. 话说天下大势，分久必合，合久必分。" * 3
CONTEXT = 600


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a chat model with random weights, whose vocabulary is padded."""
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    tokenizer = train_tokenizer([TEXT], 300)
    tokenizer.save(folder)
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size + 7,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
    )
    network = transformers.LlamaForCausalLM(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(folder: Path) -> LanguageModel:
    return load(folder)


@pytest.fixture(scope="session")
def live(model: LanguageModel) -> Iterator[Live]:
    """A server over the tiny model, with the default limits."""
    with serving(model) as live:
        yield live


@pytest.fixture
def scripted(model: LanguageModel) -> Iterator[Callable[..., tuple[Live, ScriptedEngine]]]:
    """Starts a server whose engine writes a given text."""
    with contextlib.ExitStack() as stack:

        def start(text: str | None = None, *, limits: Limits | None = None, **options: Any) -> Any:
            engine = ScriptedEngine(model.tokenizer, text, **options)
            return stack.enter_context(serving(model, engine, limits=limits)), engine

        yield start
