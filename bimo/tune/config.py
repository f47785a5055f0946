"""The configuration of a tuning run: that of a training, and what the task and its data add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bimo.config import setting
from bimo.models.lora import LoraConfig
from bimo.optim import OptimizerConfig
from bimo.train.config import DataConfig, TrainConfig


@dataclass(frozen=True)
class TuneConfig(TrainConfig):
    """Everything that decides what a tuning run does; empty values are chosen by the plan and then recorded.

    ``start`` is the model to tune; ``model.context`` is the length of a row of examples; ``reading`` says what is held
    out. What concerns text for pretraining has no part in it.
    """

    task: str = setting("chat", "what is learned: a name of bimo.tune.tasks.TASKS")
    options: Mapping[str, Any] = setting(dict, "settings of the task")
    columns: Mapping[str, str] = setting(dict, "the column of each thing the task reads, where its name does not say")
    test: list[str] = setting(list, "rows to measure on, as data; a share of the data if there are none")
    epochs: float = setting(3.0, "times that every example is seen at most, where the budget is a time")
    asked: int = setting(200, "held-out questions that the tuned model answers itself at most; fewer in a short budget")
    asked_before: bool = setting(False, "let the model answer them before training too, which takes as long again")
    most_held_out: int = setting(1000, "rows that validation and test have at most, each")
    reading: DataConfig = setting(DataConfig, "encoding, and the shares of the rows held out")
    lora: LoraConfig | None = setting(None, "learn only updates of low rank (LoRA, DoRA); empty = all weights")
    optimizer: OptimizerConfig = setting(OptimizerConfig, "which update rule; AdamW if not said otherwise")
