"""LoRA in a tuning run: what is adapted, what the run keeps of it, and how that is read again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from bimo.models import write_config
from bimo.models.adapter import FOLDER, Base, attach, read_adapter, save_adapter
from bimo.models.lora import adapt, merged
from bimo.models.weights import stored_shapes
from bimo.run import Run
from bimo.train.materials import START_FOLDER
from bimo.train.plan import Plan
from bimo.tune.config import TuneConfig
from bimo.tune.task import Task


def plan_whole(plan: Plan, model: Any) -> None:
    """Let what the model to tune does not hold be learned as a whole: rows of new tokens, and a head that is new.

    An update of low rank cannot add rows, and beside random numbers it has no sense.
    """
    config: Any = plan.config
    if config.lora is None or config.lora.whole:
        return
    stored = stored_shapes(Path(config.start))
    new = []
    for name, parameter in model.named_parameters():
        known = (
            shape for other, shape in stored.items() if f".{name}".endswith(f".{other}") or other.endswith(f".{name}")
        )
        if next(known, None) != tuple(parameter.shape):
            new.append(name.rpartition(".")[0])
    if new:
        whole = tuple(dict.fromkeys(new))
        plan.config = dataclasses.replace(config, lora=dataclasses.replace(config.lora, whole=whole))
        plan.reasons.append(("lora.whole", ", ".join(whole), f"new, or of another size than in {config.start}"))


def begin(model: Any, config: TuneConfig) -> None:
    """Freeze the model and give it what is to be learned, where the configuration says so; the same each time."""
    if config.lora is not None:
        adapt(model, config.lora, seed=config.seed)


def keep(task: Task, model: Any, config: TuneConfig, base: Base, folder: Path) -> None:
    """Write the model: all of it, or the adapter, and beside it the model it makes, in float32, if that is wanted."""
    if config.lora is None:
        task.save(model, folder)
        return
    save_adapter(model, config.lora, folder / FOLDER, base)
    if config.lora.adapter_only:
        write_config(model, torch.float32, folder)
    else:
        task.save(merged(model, torch.float32), folder)


def kept(task: Task, config: TuneConfig, run: Run, folder: Path, device: torch.device) -> Any:
    """Read what :func:`keep` wrote, as it was trained; ``run`` holds the model that it began with."""
    if config.lora is None:
        return task.load(folder, device)
    model = task.load(run.checkpoints / START_FOLDER, device)
    attach(model, read_adapter(folder / FOLDER))
    return model


def finished(task: Task, config: TuneConfig, run: Run, device: torch.device) -> Any:
    """The model that the run has come to, in plain weights."""
    if config.lora is None or not config.lora.adapter_only:
        return task.load(run.path, device)
    return merged(kept(task, config, run, run.path, device), torch.float32)


def tidy(config: TuneConfig, run: Run) -> None:
    """Of a finished run that is to keep only its adapter, remove what else is large."""
    if config.lora is not None and config.lora.adapter_only:
        shutil.rmtree(run.checkpoints)


def base_of(config: TuneConfig, parent: Any) -> Base:
    """What an adapter's files say of the model that was tuned.

    Args:
        parent: what the lineage says of it.
    """
    return Base(config.start, (parent or {}).get("weights"), config.lora.base if config.lora else "float32")
