"""The doctor on updates of low rank."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.models.lora import LoraConfig, adapt
from bimo.train import doctor
from bimo.train.materials import Materials
from bimo.train.objective import next_token_loss
from bimo.train.patient import Patient
from tests.train.test_doctor import english, failed, healthy, settings  # noqa: F401


def low_rank(patient: Patient, rank: int) -> Patient:
    """The patient with updates of low rank beside frozen weights."""
    adapt(patient.model, LoraConfig(rank=rank))
    frozen = frozenset(name for name, parameter in patient.model.named_parameters() if not parameter.requires_grad)
    skips = dict.fromkeys(("save and load", "transformers"), "an adapter is saved apart")
    return dataclasses.replace(patient, frozen=frozen, skips=skips)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_low_rank_learns_beside_weights_that_know_something(english: Materials, tmp_path: Path, rank: int) -> None:  # noqa: F811
    """Also where the gradient points uphill, which no other proof sees."""
    one = healthy(english, tmp_path, settings(optimizer={"learning_rate": 0.02, "adamw_learning_rate": 0.02}))
    optimizer, state = one.make_optimizer(one.model), one.batches.state()
    for _ in range(40):
        one.loss(one.model, next(one.batches))[0].backward()
        optimizer.step(1.0)
    one.batches.load_state(state)
    one = dataclasses.replace(low_rank(one, rank), trained=True)
    findings = {finding.name: finding for finding in doctor.examine(one)}
    assert failed([*findings.values()]) == set() and findings["overfits"].ok and one.overfitted.steps >= 1

    def uphill(model: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        value, figures = next_token_loss(model, batch)
        return 2 * value.detach() - value, dict(figures)

    assert "overfits" in failed(doctor.examine(dataclasses.replace(one, loss=uphill)))
    unknowing = low_rank(healthy(english, tmp_path, settings()), rank)
    assert "know nothing" in next(one.measured for one in doctor.examine(unknowing) if one.name == "overfits")
