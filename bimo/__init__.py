"""bimo (笔墨, "brush and ink"): from a folder of text to a language model you own, understand and can vouch for.

    model = bimo.load("runs/quickstart")
    bimo.train(data="shakespeare", budget="10m", out="runs/shakespeare")
    bimo.tune("chat", model="runs/shakespeare", data="messages.jsonl", out="runs/assistant")

Importing bimo is cheap: what a name needs (torch above all) is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimo.generate.language_model import load
    from bimo.train.pretrain import train
    from bimo.tune.tune import tune

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train", "tune"]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("bimo.generate.language_model").load
    if name in ("train", "tune"):  # the folder is also the function: see its __init__.py
        return importlib.import_module(f"bimo.{name}")
    raise AttributeError(f"module 'bimo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
