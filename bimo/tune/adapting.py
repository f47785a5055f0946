"""LoRA in a tuning run: what is adapted, what the run keeps of it, and how that is read again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from bimo import files
from bimo.errors import ModelError
from bimo.models import write_config
from bimo.models.adapter import FOLDER, Base, attach, read_adapter, save_adapter
from bimo.models.lora import adapt, merged
from bimo.run import Run
from bimo.train.materials import START_FOLDER
from bimo.train.plan import Plan
from bimo.tune.config import TuneConfig
from bimo.tune.task import Task


def plan_whole(plan: Plan, model: Any) -> None:
    """Let the tables be learned as a whole where the vocabulary grew: an update of low rank cannot add rows."""
    config: Any = plan.config
    if config.lora is None or config.lora.whole:
        return
    rows = model.config.vocab_size
    before = files.read_json(Path(config.start) / "config.json", error=ModelError).get("vocab_size")
    if rows != before:
        tables = [name for name, table in model.named_parameters() if table.ndim == 2 and table.shape[0] == rows]
        whole = tuple(name.removesuffix(".weight") for name in tables)
        plan.config = dataclasses.replace(config, lora=dataclasses.replace(config.lora, whole=whole))
        plan.reasons.append(("lora.whole", ", ".join(whole), f"the vocabulary grew from {before:,} to {rows:,}"))


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
    """The model that the run has come to; of one that keeps only its adapter, what else is large goes."""
    if config.lora is None or not config.lora.adapter_only:
        return task.load(run.path, device)
    model = merged(kept(task, config, run, run.path, device), torch.float32)
    shutil.rmtree(run.checkpoints)
    return model


def base_of(config: TuneConfig, parent: Any) -> Base:
    """What an adapter's files say of the model that was tuned.

    Args:
        parent: what the lineage says of it.
    """
    return Base(config.start, (parent or {}).get("weights"), config.lora.base if config.lora else "float32")
