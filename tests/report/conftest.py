"""A finished run as `bimo train` leaves it, without the training: 500 noisy steps of a five-minute run."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bimo import files
from bimo.run import Run

STEPS, EVERY, PLANNED = 500, 25, 520

CONFIG = """\
data:
- shakespeare
budget: 5m
steps: 520
seed: 3
device: cpu
dtype: bfloat16
model:
  family: qwen3
  width: 192
  layers: 4
  heads: 3
  kv_heads: 3
  mlp_width: 512
  context: 256
batch:
  size: 8
optimizer:
  name: muon
  clip: 1.0
"""

CHOICES = [
    ("dtype", "bfloat16", "a small model's matmuls, GFLOP/s: float32 156, bfloat16 376"),
    ("threads", 2, "what this machine offers"),
    ("compile", True, "fused layers earn back the time of compiling them"),
    ("tokenizer.vocab_size", 2048, "for 4.6 MB of training text and this budget"),
    ("model.width", 192, "fewest predicted bits per byte for this time"),
    ("model.layers", 4, "goes with width 192"),
    ("model.initial", "bigram", "starts at the word pairs of the text"),
    ("batch.size", 8, "small batches make more steps of the same text"),
    ("steps", 520, "225 s at 412 ms a step, 6% more for validation and records"),
    ("model.dropout", 0.0, "the text is read 0.7 times"),
    ("evaluate_every", 25, "about 20 validations in all, at least 5 steps apart"),
]

LINEAGE: dict[str, Any] = {
    "kind": "base",
    "status": "finished",
    "created": "2026-11-23T09:30:40+00:00",
    "parent": None,
    "seed": 3,
    "data": {
        "source": "shakespeare",
        "licence": "public domain",
        "data_hash": "f99a39673185b02237c9eaf6bc917b47fbe563c1054b01f42958f90c07c43585",
        "documents": 42,
        "bytes": 5057197,
        "train": {"documents": 38, "bytes": 4554368},
        "validation": {"documents": 1, "bytes": 141753},
        "test": {"documents": 3, "bytes": 361076},
        "note": "",
        "skipped": [
            {"file": "notes/cover.png.txt", "reason": "binary file"},
            {
                "file": "old/1611-folio.txt",
                "reason": "not UTF-8 (byte 0xe9 at offset 20): convert it or pass --encoding",
            },
        ],
    },
    "tokenizer": {
        "hash": "d94ff89c628da84c2d7e20b73d14d070cf9923c116955575322219b7aaa5a599",
        "vocab_size": 2048,
        "bytes_per_token": 2.9694,
    },
    "versions": {"bimo": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.4.6", "tokenizers": "0.23.3"},
    "machine": {
        "system": "Linux x86_64",
        "processor": "AMD EPYC",
        "cores": 2,
        "threads": 2,
        "matmul_peak": {"float32": 155627237351, "bfloat16": 375686588571},
    },
    "events": ["step 250: the machine is slower than planned; training is shortened from 520 to 500 steps"],
    "cost": {"wall_seconds": 287.4, "cpu_seconds": 561.2, "peak_memory_bytes": 1247053312},
    "metrics": {
        "test_bits_per_byte": {
            "value": 1.93815827007675,
            "low": 1.92457642711692,
            "high": 1.951791225962707,
            "resampled": "125 blocks of 1,000 tokens",
        },
        "test_perplexity": {
            "value": 54.00457500981623,
            "low": 52.77080309407984,
            "high": 55.35025446257342,
            "resampled": "125 blocks of 1,000 tokens",
        },
        "validation_bits_per_byte": 1.9770569700734633,
        "best_step": 500,
        "steps": 500,
        "tokens": 1024000,
        "epochs": 0.668,
        "training_seconds": 221.3,
        "baselines": {
            "n-gram of order 4": {
                "value": 2.152,
                "low": 2.141,
                "high": 2.163,
                "resampled": "125 blocks of 1,000 tokens",
            },
            "gzip -9": {"value": 3.317, "low": None, "high": None},
            "xz -9": {"value": 2.904, "low": None, "high": None},
        },
        "difference_to_ngram": {"value": -0.2138, "low": -0.2214, "high": -0.2061, "resampled": "125 blocks"},
    },
    "plan": {
        "training_seconds": 214.3,
        "step_seconds": 0.412,
        "choices": [{"key": key, "value": value, "reason": reason} for key, value, reason in CHOICES],
    },
    "model": {"parameters": 2556480, "non_embedding_parameters": 1770048},
}


def records(steps: int = STEPS) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl``: a loss that falls along a power law, with noise, and a validation now and then."""
    chance = random.Random(3)
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        bits = 1.86 + 0.9 * (1 + step / 12) ** -0.6
        rate = min(1.0, step / 15, 0.02 + 1.65 * (1 - step / steps))
        record = {
            "step": step,
            "loss": round(bits * 2.06, 6),
            "bits_per_byte": round(bits + chance.gauss(0, 0.035), 6),
            "gradient_norm": round(math.exp(chance.gauss(0, 0.15)) * (0.7 + 4 / (1 + step / 5)), 6),
            "learning_rate_multiplier": round(rate, 6),
            "tokens": 2048 * step,
            "seconds": round(0.4426 * step, 3),
        }
        if step % EVERY == 0 or step == steps:
            record["validation_bits_per_byte"] = round(bits + 0.03 + chance.gauss(0, 0.004), 6)
        found.append(record)
    return found


@pytest.fixture
def lineage() -> dict[str, Any]:
    """A lineage of its own for each test."""
    return copy.deepcopy(LINEAGE)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Writes a run folder from a lineage, records and a configuration."""

    def make(
        lineage: dict[str, Any] = LINEAGE,
        metrics: list[dict[str, Any]] | None = None,
        config: str | None = CONFIG,
        name: str = "shakespeare",
    ) -> Run:
        run = Run(tmp_path / name)
        run.path.mkdir(parents=True, exist_ok=True)
        files.write_json(run.lineage, lineage)
        for record in records() if metrics is None else metrics:
            run.append_metrics(record)
        if config is not None:
            run.config.write_text(config, encoding="utf-8")
        return run

    return make
