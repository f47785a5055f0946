"""A small text and a small configuration that train in seconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

SUBJECTS = ("the cat", "a dog", "my old friend", "the king", "one sailor", "诸葛亮", "曹操")
VERBS = ("sees", "loves", "fears", "follows", "sells", "大败", "思念")
OBJECTS = ("the moon", "a ship", "fresh bread", "the long road", "nobody", "关羽", "赤壁")


def sentence(generator: random.Random) -> str:
    return " ".join(generator.choice(words) for words in (SUBJECTS, VERBS, OBJECTS)) + ".\n"


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 documents of easily learned sentences, English and Chinese."""
    folder = tmp_path_factory.mktemp("text")
    generator = random.Random(0)
    for number in range(30):
        text = "".join(sentence(generator) for _ in range(60))
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A configuration with everything pinned; 40 steps in about a second."""
    return {
        "steps": 40,
        "dtype": "float32",
        "compile": False,
        "threads": 1,
        "evaluate_every": 8,
        "checkpoint_every": 7,
        "tokenizer": {"vocab_size": 320},
        "model": {"width": 24, "layers": 2, "heads": 3, "mlp_width": 40, "context": 16, "dropout": 0.1},
        "batch": {"size": 6, "accumulate": 2},
    }
