"""``bimo doctor``: everything up to step 1 of a training, proven on the user's own text, model and machine."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bimo.commands import Device
from bimo.errors import RunError, TrainingError, UsageError

if TYPE_CHECKING:
    from bimo.train.doctor import Doctor
    from bimo.train.patient import Finding


def doctor(
    subject: Path | None = None,
    /,
    *,
    data: list[str] | None = None,
    budget: str | None = None,
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None,
    device: Device | None = None,
    seed: int | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
) -> None:
    """Prove that a training is right, before it costs anything.

    Prepares what bimo train would, runs every proof and prints what it saw and
    what that means. Exit code 1 if a proof fails. Nothing is written.

        bimo doctor --data shakespeare --budget 10m
        bimo doctor config.yaml --set model.width=256
        bimo doctor runs/shakespeare

    Args:
        subject: a YAML file of settings, or the directory of a run that is to be examined
        data: a file, a folder, a prepared folder or the name of a corpus; can be given several times
        budget: as for bimo train
        overrides: settings as key=value, several if you like; see docs/configuration.md
        device: where to compute; the best device present if not given
        seed: of every random choice; 0 if not given
        text_column: column or key that holds the text in tables and JSON; "text" if not given
        encoding: of files that do not say their own, such as gb18030; found out if not given
    """
    options = {"device": device, "seed": seed, "reading.text_column": text_column, "reading.encoding": encoding}
    given = [*(overrides or ()), *(f"{key}={value}" for key, value in options.items() if value is not None)]
    if subject is not None and subject.suffix not in (".yaml", ".yml"):
        if data or budget or given[bool(device) :]:
            fix = "To examine a new training, leave the folder out; to examine the run, leave the options out."
            raise UsageError(f"A run has its data and settings already, and {subject} came with more.", fix=fix)
        findings = _examine_run(subject, device)
    else:
        from bimo.train.doctor import only_examine

        findings = until_step_1(only_examine, data, budget, subject, given)
    failed = [finding.name for finding in findings if finding.ok is False]
    if failed:
        raise TrainingError(f"{len(failed)} of {len(findings)} proofs failed: {', '.join(failed)}.")


def until_step_1(
    doctor: Doctor, data: list[str] | None, budget: str | None, config: Path | None, overrides: Sequence[str]
) -> Sequence[Finding]:
    """Start a training in a folder that is thrown away, and end it where ``doctor`` does."""
    from bimo.train import pretrain
    from bimo.train.doctor import Examined

    with tempfile.TemporaryDirectory(prefix="bimo-") as folder:
        try:
            pretrain.train(data, budget, folder, config=config, overrides=overrides, doctor=doctor)
        except Examined as done:
            return done.findings
    raise AssertionError("the doctor let the training go on")


def _examine_run(folder: Path, device: Device | None) -> Sequence[Finding]:
    """The proofs on the weights, text and settings of a run that exists."""
    from bimo.config import from_mapping, read_yaml
    from bimo.device import resolve_device
    from bimo.models import load_model
    from bimo.run import Run
    from bimo.train.build import computing_as, patient_of
    from bimo.train.config import TrainConfig
    from bimo.train.display import Display
    from bimo.train.doctor import Examined, only_examine
    from bimo.train.materials import TOKENS_FOLDER, open_materials
    from bimo.train.start import make_batches

    run = Run.open(folder)
    values = read_yaml(run.config)
    if "task" in values:
        fix = "Its findings of before step 1 are in lineage.json; to see its first batch: bimo tune ... --show-batch."
        raise RunError(f"{folder} is a tuned model.", expected="a run of `bimo train`", got=values["task"], fix=fix)
    config = from_mapping(TrainConfig, values, where=str(run.config))
    where = resolve_device(device or config.device)
    if not (run.checkpoints / TOKENS_FOLDER).is_dir():
        fix = "Examine a new training on its text instead: bimo doctor --data PATH."
        raise RunError(f"{folder} no longer has the text it was trained on.", expected=str(run.checkpoints), fix=fix)
    materials = open_materials(run, run.read_lineage()["data"])
    kernels = config.kernels and where.type == "cpu"
    model = computing_as(load_model(run.path, device=where), dataclasses.replace(config, kernels=kernels))
    batches = make_batches(config, materials)
    with tempfile.TemporaryDirectory(prefix="bimo-") as scratch:
        patient = patient_of(config, materials, model, batches, Path(scratch))
        try:
            only_examine(dataclasses.replace(patient, trained=True), Display())
        except Examined as done:
            return done.findings
    raise AssertionError("the examination did not end")
