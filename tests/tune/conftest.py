"""A tiny model and a few conversations on which tuning takes a second or two."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from tests.tune.chat_folder import chat_folder

TEXTS = ["where is the moon? the moon is up there, say it again. 月亮在哪里？月亮在天上。再说一遍。"] * 3


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 340)


@pytest.fixture(scope="session")
def model_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a chat template and fresh weights."""
    return chat_folder(tmp_path_factory.mktemp("models") / "tiny", tokenizer)


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 conversations of two answers, English and Chinese."""
    generator = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "talks.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(60):
            who, place = generator.choice("月日星火水木"), generator.choice(("up there", "in town", "far away"))
            messages = [
                {"role": "user", "content": f"where is {who}{number}?"},
                {"role": "assistant", "content": f"{who} is {place}."},
                {"role": "user", "content": "再说一遍"},
                {"role": "assistant", "content": f"{who}在天上"},
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A configuration with everything pinned."""
    return {
        "steps": 24,
        "dtype": "float32",
        "kernels": False,
        "threads": 1,
        "evaluate_every": 6,
        "checkpoint_every": 5,
        "batch": {"size": 2, "accumulate": 2},
        "optimizer": {"learning_rate": 0.01, "adamw_learning_rate": 0.01},
        "model": {"dropout": 0.1},
        "averaging": 0.2,
    }
