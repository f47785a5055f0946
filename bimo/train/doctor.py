"""Preflight: a training proves on the user's own model, text and machine that it is right, before step 1.

Every proof is a function from a :class:`Patient` to a :class:`Finding`; they work on copies, so that nothing moves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bimo.device import return_memory
from bimo.errors import TrainingError
from bimo.train import data_proofs, proofs
from bimo.train.display import LOG_WIDTH, Display
from bimo.train.patient import Finding, Patient
from bimo.train.shown import show_batch

Doctor = Callable[[Patient, Display], Any]
SKIPPED = "skipped with --no-doctor"
MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "dim")}
THOROUGHLY = 3  # times as many labels are printed where nothing but the examination was wanted


class Examined(Exception):
    """Ends a start before step 1, because only the examination was wanted."""

    def __init__(self, findings: Sequence[Finding] = ()) -> None:
        super().__init__()
        self.findings = findings


@dataclass(frozen=True)
class Proof:
    """One line of the examination.

    Attributes:
        name: what a user calls it.
        needs: proofs whose failure would be this one's too; it is skipped then, so that the cause alone is named.
        meaning: what it tells, in one line.
    """

    name: str
    check: Callable[[Patient], Finding]
    meaning: str
    needs: tuple[str, ...] = ()


PROOFS: tuple[Proof, ...] = (
    Proof("labels", data_proofs.labels, "each label is the id that follows its input in the text: shifted once"),
    Proof("loss mask", data_proofs.loss_mask, "there is something to learn in the first batch"),
    Proof("end of text", data_proofs.end_of_text, "the model learns where documents end", ("loss mask",)),
    Proof("nothing cut off", data_proofs.nothing_cut_off, "an epoch teaches all of the text", ("labels", "loss mask")),
    Proof("positions", data_proofs.positions, "positions start again with each document"),
    Proof("shared text", data_proofs.shared_text, "the validation text is not in the training text"),
    Proof("weights", proofs.weights, "every weight is a number"),
    Proof("loss", proofs.one_shift, "the loss is the cross-entropy at the labels, not shifted again", ("weights",)),
    Proof("first loss", proofs.first_loss, "untrained, the model guesses about blindly", ("loss", "loss mask")),
    Proof("gradients", proofs.gradient_norms, "every layer can learn", ("weights", "loss mask")),
    Proof("optimizer", proofs.optimizer, "every parameter is updated", ("weights", "loss mask")),
    Proof("overfits", proofs.overfits, "the model learns a tiny batch by heart", ("first loss", "gradients")),
    Proof("causality", proofs.causality, "no position sees a later one", ("weights", "loss mask")),
    Proof("packing", proofs.packing, "documents in one row do not see each other", ("positions", "causality")),
    Proof("padding", proofs.padding, "what is masked changes nothing", ("loss", "causality")),
    Proof("accumulation", proofs.accumulation, "a divided step is the same step", ("loss", "padding")),
    Proof("precision", proofs.precision, "the fast arithmetic is right", ("weights", "loss mask")),
    Proof("save and load", proofs.save_and_load, "what is saved is what was trained", ("weights", "loss mask")),
    Proof("transformers", proofs.transformers, "Hugging Face computes the same", ("save and load", "causality")),
)


def examine(patient: Patient, chosen: Sequence[Proof] = PROOFS) -> list[Finding]:
    """Run the proofs in order. Weights, place in the data and global random state are afterwards as before."""
    devices = [patient.device] if patient.device.type == "cuda" else []
    failed: set[str] = set()
    findings = []
    return_memory()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        for proof in chosen:
            causes = [name for name in proof.needs if name in failed]
            reason = f"waits for: {', '.join(causes)}" if causes else patient.skips.get(proof.name)
            found = Finding(None, reason) if reason else proof.check(patient)
            findings.append(dataclasses.replace(found, name=proof.name))
            if found.ok is False or causes:
                failed.add(proof.name)
            return_memory()
    return findings


def require(findings: Sequence[Finding]) -> None:
    """Stop where a proof failed.

    Raises:
        TrainingError: names each proof that failed, what it saw, and the next step.
    """
    failed = [finding for finding in findings if finding.ok is False]
    if failed:
        told = "; ".join(f"{one.name}: {one.measured} (expected {one.expected}). {one.fix}" for one in failed)
        count = "A proof" if len(failed) == 1 else f"{len(failed)} proofs"
        fix = "To train regardless: --no-doctor."
        raise TrainingError(f"{count} failed before step 1: {told}", fix=fix)


def show(findings: Sequence[Finding], console: Console, *, meanings: bool = False) -> None:
    """A line for each finding: mark, name, number, and on demand what it means."""
    known = {proof.name: proof.meaning for proof in PROOFS}
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ({}, {"style": "cyan", "no_wrap": True}, {"overflow": "fold"}):
        table.add_column(**column)
    for finding in findings:
        mark, style = MARKS[finding.ok]
        told = f"{finding.measured} (expected {finding.expected})" if finding.ok is False else finding.measured
        table.add_row(f"[{style}]{mark}[/]", finding.name, _escaped(told), style="dim" if finding.ok is None else "")
        if meanings and finding.name in known:
            table.add_row("", "", known[finding.name], style="dim")
        if finding.ok is False:
            table.add_row("", "", _escaped(finding.fix), style="yellow")
    console.print(table)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def preflight(patient: Patient, display: Display) -> list[dict[str, Any]]:
    """What every training does before step 1: examine, show the findings and a few lines of the batch, stop or go on.

    Returns:
        the findings as the lineage keeps them.

    Raises:
        TrainingError: a proof failed.
    """
    with display.bar("examining"):
        findings = examine(patient)
    show(findings, display.console)
    most, lines = patient.shown
    show_batch(
        patient.epoch.first, patient.tokenizer, display.console, rows=1, most=most, lines=lines, classes=patient.classes
    )
    require(findings)
    return [dataclasses.asdict(finding) for finding in findings]


def no_doctor(patient: Patient, display: Display) -> str:
    """What ``--no-doctor`` does: nothing, and says so in the lineage."""
    return SKIPPED


def only_examine(patient: Patient, display: Display) -> Any:
    """What ``bimo doctor`` does: examine thoroughly, show everything and end.

    Raises:
        Examined: always.
    """
    patient.thorough = True
    with display.bar("examining"):
        findings = examine(patient)
    console = results_console()
    show(findings, console, meanings=True)
    show_batch(
        patient.epoch.first,
        patient.tokenizer,
        console,
        rows=1,
        most=THOROUGHLY * patient.shown[0],
        classes=patient.classes,
    )
    raise Examined(findings)


def only_show_batch(patient: Patient, display: Display) -> Any:
    """What ``--show-batch`` does: print the first batch with its mask, whole, and end.

    Raises:
        Examined: always.
    """
    show_batch(patient.epoch.first, patient.tokenizer, results_console(), classes=patient.classes)
    raise Examined


def results_console() -> Console:
    """Standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console
