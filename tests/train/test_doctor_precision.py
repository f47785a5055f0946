"""The doctor on fast arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from bimo.batches.loader import Batch
from bimo.train import doctor, proofs
from bimo.train.materials import Materials
from bimo.train.patient import Patient
from tests.train.test_doctor import english, failed, healthy, settings, with_batches  # noqa: F401


def test_compiled_layers_are_compared(english: Materials, tmp_path: Path) -> None:  # noqa: F811
    """The compiler itself is not needed to see that its result is what is compared."""
    examined = healthy(english, tmp_path)

    def compile_wrongly(model: Any) -> None:
        model.model.layers[0].forward = lambda x, *rest: x

    examined.compile = lambda model: None
    (fine,) = [finding for finding in doctor.examine(examined) if finding.name == "precision"]
    assert fine.ok and "compiled" in fine.measured
    wrong = dataclasses.replace(examined, compile=compile_wrongly)
    assert failed(doctor.examine(wrong)) == {"precision"}


def test_precision_is_measured_at_every_token(english: Materials, tmp_path: Path) -> None:  # noqa: F811
    """Few labels that count, as a yes after a long question, would say little but how that one was rounded."""

    def one_label(batch: Batch, _: Patient) -> Batch:
        counts = torch.zeros_like(batch.loss_mask)
        counts[0, 3] = True
        return dataclasses.replace(batch, loss_mask=counts)

    examined = healthy(english, tmp_path, settings(dtype="bfloat16"))
    few = with_batches(one_label)(examined)
    few.overfitted = examined.overfitted
    assert int(few.pass_batch.loss_mask.sum()) == 1
    assert proofs.precision(few) == proofs.precision(examined)
