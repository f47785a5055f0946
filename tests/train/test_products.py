"""oneDNN compiles each shape of a product; a training step must find all of its own compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bimo.device import multiplies_bfloat16

STEPS = 120
SETTINGS = {
    "steps": STEPS,
    "model.width": 64,
    "model.layers": 2,
    "model.heads": 4,
    "model.kv_heads": 2,  # matrices of four shapes, one more than with a key head for each query head
    "model.mlp_width": 96,
    "model.context": 32,
    "tokenizer.vocab_size": 300,
    "batch.size": 4,
    "threads": 1,
}


def compiled_products(text: Path, out: Path, **environment: str) -> int:
    """How often a whole `bimo train` compiled a product, by oneDNN's own account."""
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    command = [sys.executable, "-m", "bimo", "train", "--data", str(text), "--out", str(out), "--set", *settings]
    variables = {**os.environ, "ONEDNN_VERBOSE": "2", **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.count("create:cache_miss")


@pytest.mark.skipif(not multiplies_bfloat16(torch.device("cpu")), reason="products are not oneDNN's without bfloat16")
def test_a_step_finds_its_products_compiled(text_folder: Path, tmp_path: Path) -> None:
    assert 0 < compiled_products(text_folder, tmp_path / "enough") < 4 * STEPS
    too_few = compiled_products(text_folder, tmp_path / "few", ONEDNN_PRIMITIVE_CACHE_CAPACITY="12")
    assert too_few > 10 * STEPS
