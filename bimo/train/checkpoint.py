"""Checkpoints: all that training needs to go on bit for bit, whole or absent whatever interrupts the writing.

``checkpoints/step-00000123/state.safetensors``  learned weights (``model.*``), optimizer state (``optimizer.*``)
``checkpoints/step-00000123/state.json``         everything else, and the hash of the tensors
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bimo import files
from bimo.errors import RunError
from bimo.models import trained_parameters
from bimo.optim import Optimizer

KEPT = 2  # the newest, and the one before it should a disk fail the newest
_FIX = "Delete this checkpoint to resume from an earlier one."


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put learned weights and optimizer state back; frozen weights are as the run began with them."""
        with torch.no_grad():
            for name, parameter in trained_parameters(model).items():
                parameter.copy_(self.tensors[f"model.{name}"])
        prefix = "optimizer."
        optimizer.load_state_tensors(
            {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}
        )


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    *,
    further: Mapping[str, Tensor] | None = None,
    good: int | None = None,
) -> None:
    """Write a checkpoint beside the earlier ones, then delete all but the newest few.

    Args:
        further: tensors to keep beside weights and optimizer state, under names that begin with neither's.
        good: the newest checkpoint up to this step is kept too; later ones may be of a model that is being ruined.

    Raises:
        OSError: the disk is full or the folder not writable; earlier checkpoints are untouched.
    """
    tensors = {f"model.{name}": parameter.detach() for name, parameter in trained_parameters(model).items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.state_tensors().items()}
    tensors |= further or {}
    final = folder / f"step-{step:08d}"
    unfinished = folder / f".{final.name}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        path = unfinished / "state.safetensors"
        content = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        with files.atomic_path(path) as temporary:
            write_safetensors(content, temporary)
        files.write_json(unfinished / "state.json", {**state, "step": step, "sha256": files.sha256_file(path)})
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        files.sync_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # where writing failed
    steps = steps_of(folder)
    trusted = [path for path in steps if good is None or path.name <= f"step-{good:08d}"][-1:]
    for old in set(steps[:-KEPT]) - set(trusted):
        shutil.rmtree(old, ignore_errors=True)


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file; a failing disk raises ``OSError``, which the library wraps otherwise."""
    try:
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    except safetensors.SafetensorError as cause:
        raise OSError(str(cause)) from None


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint in ``folder``; None when training was interrupted before the first.

    Raises:
        RunError: the newest checkpoint is damaged; it is named, so that the user can fall back to the one before.
    """
    steps = steps_of(folder)
    if not steps:
        return None
    path = steps[-1] / "state.safetensors"
    state = files.read_json(steps[-1] / "state.json", error=RunError, expected="the state of a checkpoint")
    try:
        if files.sha256_file(path) != state.get("sha256"):
            raise RunError(f"{path} is damaged.", expected="the bytes that were written", got="others", fix=_FIX)
        return Checkpoint(safetensors.torch.load_file(path), state)
    except (OSError, safetensors.SafetensorError) as cause:
        raise RunError(f"{path} cannot be read.", expected="a checkpoint", got=str(cause), fix=_FIX) from None


def steps_of(folder: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
