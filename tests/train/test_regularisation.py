"""Dropout, weight decay and the plan's choice of them reach the weights; early stopping is in test_pretrain.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bimo.models.llama import Config, Model
from bimo.optim import INSIDE_LAYERS, Optimizer, OptimizerConfig
from bimo.train.anchor import Anchor
from bimo.train.budget import parse_budget
from bimo.train.config import BatchConfig, ModelConfig, TrainConfig
from bimo.train.doctor import no_doctor
from bimo.train.plan import Plan, plan_steps
from bimo.train.pretrain import train


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_weight_decay_shrinks_the_matrices_of_the_layers_and_nothing_else(name: Any) -> None:
    """Without any gradient, decay is all that is left of a step."""
    model = Model(Config(11, 12, 20, 2, 3, 3, 4, 32, tie_word_embeddings=False))
    model.init_weights(torch.Generator().manual_seed(0))
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimizer = Optimizer(model, OptimizerConfig(name, learning_rate=0.2, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.5)
    for key, parameter in model.named_parameters():
        decays = parameter.ndim == 2 and INSIDE_LAYERS.search(key)
        assert torch.allclose(parameter, before[key] * (1 - 0.2 * 0.5 * 0.5 if decays else 1.0)), key


def test_dropout_of_the_configuration_acts_on_training_and_not_on_validation(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """The first loss is that of the same weights and text, so only dropout can change it."""
    first = {}
    for share in (0.0, 0.5):
        model = {**tiny["model"], "dropout": share}
        config = {**tiny, "steps": 1, "model": model, "schedule": {"warmup": 0.0, "final": 1e-9}}
        config["optimizer"] = {"learning_rate": 1e-9, "adamw_learning_rate": 1e-9}
        first[share] = train(
            text_folder, None, tmp_path / str(share), config=config, quiet=True, doctor=no_doctor
        ).read_metrics()[0]
    assert abs(first[0.0]["loss"] - first[0.5]["loss"]) > 1e-3
    assert first[0.0]["validation_bits_per_byte"] == pytest.approx(first[0.5]["validation_bits_per_byte"], abs=1e-5)


def test_the_plan_drops_more_the_more_often_the_text_is_read() -> None:
    shares = []
    for epochs in ("1-epochs", "5-epochs", "20-epochs"):
        shape = ModelConfig(width=32, layers=1, context=16)
        plan = Plan(TrainConfig(budget=epochs, model=shape, batch=BatchConfig(size=4)))
        tokens = 10_000 * (parse_budget(epochs).epochs or 0)
        plan_steps(plan, None, 0.01, Anchor(2.1, 10_000, 3.0, 2048), tokens, 100)
        shares.append(plan.config.model.dropout)
    assert shares[0] == 0.0 and shares == sorted(set(shares))  # type: ignore[type-var]
