"""Taking up a run where it was cut off, to the same bytes as without the interruption."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bimo import files
from bimo.config import differences, from_mapping, merged, part_like, read_yaml, to_yaml
from bimo.errors import RunError
from bimo.run import Run
from bimo.train.build import build_model, compile_or_announce
from bimo.train.checkpoint import Checkpoint, load_checkpoint
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.guard import check_changes
from bimo.train.lineage import Lineage, Stopwatch
from bimo.train.materials import check_unchanged, reopen_materials
from bimo.train.start import Session, make_batches, set_up
from bimo.train.surroundings import Surroundings


def reopen(
    run: Run, given: Mapping[str, Any], display: Display, stopwatch: Stopwatch, around: Surroundings
) -> Session | None:
    """Everything as it was after the last checkpoint; None when the run is finished.

    Args:
        given: what the user says now, as plain values; it must not contradict how the run began.

    Raises:
        RunError: the configuration, the text or the tokenizer changed, or the checkpoint is damaged.
    """
    recorded = read_yaml(run.config)
    if "task" in recorded:
        fix = f"Continue it with: bimo tune {recorded['task']} --out {run.path} --resume"
        raise RunError(f"{run.path} is no pretraining.", expected="a run of `bimo train`", got="a tuned model", fix=fix)
    given = {key: value for key, value in given.items() if value != "auto"}  # "auto" was resolved when the run began
    changes = list(differences(part_like(recorded, given), given))
    lineage = Lineage.open(run, stopwatch)
    check_changes(run, lineage, changes)
    config = from_mapping(TrainConfig, merged(recorded, given), where=str(run.config))
    if lineage.finished:
        display.note(f"{run.path} is finished; there is nothing to resume.")
        return None
    device, machine = set_up(config, display)
    source, split = around.read(config, display)
    check_unchanged(run, lineage.values, split)
    materials = reopen_materials(run, lineage.values["data"], source, split, display)
    checkpoint = go_on(run, config, lineage, changes, display)
    model = build_model(config, materials, device)
    if config.compile:  # the compiler may have gone since
        compiled, _ = compile_or_announce(model, make_batches(config, materials), config, display)
        config = dataclasses.replace(config, compile=compiled)
        lineage.announce("" if compiled else "the layers could not be compiled any more", display.note)
    return Session(config, materials, model, lineage, machine, checkpoint)


def go_on(
    run: Run, config: TrainConfig, lineage: Lineage, changes: Sequence[str], display: Display
) -> Checkpoint | None:
    """The last checkpoint, with metrics, configuration and lineage as of its step.

    Args:
        changes: what the user set differently this time.

    Raises:
        RunError: the checkpoint is damaged.
    """
    run.remove_unfinished()
    checkpoint = load_checkpoint(run.checkpoints)
    step = checkpoint.state["progress"]["step"] if checkpoint else 0
    run.forget_metrics_after(step)
    display.note(f"resuming after step {step}")
    files.write_text(run.config, to_yaml(config))
    lineage.values["status"] = "running"
    lineage.event(", ".join([f"resumed after step {step}", *changes]))
    return checkpoint
