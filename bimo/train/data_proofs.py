"""Proofs about the text: labels, loss mask, ends of documents, nothing left out, nothing shared with validation."""

from __future__ import annotations

import numpy as np
import torch

from bimo.batches.loader import Batch
from bimo.train.overlap import SPAN, find_overlap
from bimo.train.patient import Finding, Patient, begins

MOST_SHARED = 0.1  # of the validation ids, in spans that training has too; real texts have up to 4%
FEWEST_ENDS = 0.9  # of the documents that were read, whose ends count
EXPECTED_ENDS = 5  # documents below which none may end in what was read
NO_STREAM = "these batches are not cut from one stream"


def labels(patient: Patient) -> Finding:
    """Compare inputs and labels with the shard itself: an input is the id at its position, a label the next one."""
    batch, tokens = patient.epoch.first, patient.train
    if tokens is None:
        return _next_inputs(batch)
    places = (batch.positions[:, None] + torch.arange(batch.labels.shape[1])).numpy()  # (B, T)
    stream, counts = np.asarray(tokens.ids), batch.loss_mask.numpy()

    def right(found: torch.Tensor, ahead: int) -> int:
        return int((stream[(places + ahead) % tokens.count] == found.numpy())[counts].sum())

    total, inputs, next_ids = batch.tokens, right(batch.input_ids, 0), right(batch.labels, 1)
    measured = f"{next_ids:,} of {total:,} labels are the id after their input"
    if inputs < total:
        measured += f", but only {inputs:,} inputs are what the text has at their position"
    ahead = max((0, 2, -1, 3), key=lambda distance: right(batch.labels, distance))
    if next_ids < total and right(batch.labels, ahead) == total:
        measured += f"; all are the id {ahead} ahead"
    fix = "Shift once: where the batch is made (labels[t] = ids[t + 1]), and nowhere else."
    return Finding(inputs == next_ids == total, measured, "all of them, exactly 1 ahead", fix)


def _next_inputs(batch: Batch) -> Finding:
    """Compare labels with the inputs that follow them, where both are of one example."""
    inside = ~begins(batch, None)[:, 1:]
    total, right = int(inside.sum()), int((inside & (batch.labels[:, :-1] == batch.input_ids[:, 1:])).sum())
    fix = "Shift once: where the batch is made (labels[t] = ids[t + 1]), and nowhere else."
    return Finding(right == total, f"{right:,} of {total:,} labels are the next input", "all of them", fix)


def loss_mask(patient: Patient) -> Finding:
    """Count the labels that count."""
    epoch = patient.epoch
    measured = f"{epoch.counted:,} of {epoch.positions:,} labels count ({epoch.counted / max(1, epoch.positions):.1%})"
    empty = patient.epoch.first.tokens == 0
    if empty and epoch.counted:
        measured = f"none of the {epoch.first.labels.numel():,} labels of the first batch counts; {measured} in all"
    fix = "Look at the batch with --show-batch: what should be learned must be green."
    return Finding(not empty and epoch.counted > 0, measured, "some in the first batch", fix)


def end_of_text(patient: Patient) -> Finding:
    """Count the ends of documents among the labels that count; without them a model never learns to stop."""
    epoch, tokens = patient.epoch, patient.train
    measured = f"{epoch.ends:,} of {epoch.counted:,} labels that count are {_end_name(patient)}"
    fix = "Let the mask include the end-of-text id after each document or answer."
    if tokens is None:
        answers = epoch.stretches if patient.ends else 1  # without ends of its own, what is learned may be anything
        return Finding(epoch.ends >= FEWEST_ENDS * answers > 0, measured, f"about {answers:,}, one an answer", fix)
    wanted = tokens.documents * min(1.0, epoch.covered / tokens.count)
    if wanted < EXPECTED_ENDS and not epoch.ends and not epoch.whole:
        return Finding(None, f"{measured}; documents are longer than what was read of them")
    return Finding(epoch.ends >= FEWEST_ENDS * wanted - 1, measured, f"about {wanted:,.0f}, one a document", fix)


def _end_name(patient: Patient) -> str:
    ends = patient.ends or {patient.tokenizer.eos_id}
    return next((name for name, id in patient.tokenizer.special.items() if id in ends), "the end")


def nothing_cut_off(patient: Patient) -> Finding:
    """Count the ids of the text that an epoch never teaches, and the documents that span several rows."""
    epoch, tokens = patient.epoch, patient.train
    if tokens is None:
        return Finding(None, NO_STREAM)
    context = epoch.first.labels.shape[1]
    longer = int((np.diff(np.append(tokens.starts, tokens.count)) > context).sum())
    rows = (
        f"{longer:,} of {tokens.documents:,} documents are longer than a row ({context} tokens) and go on in the next"
    )
    fix = "Let every epoch cut the whole text into rows, the rest included."
    if epoch.whole:
        lost = tokens.count - epoch.covered
        return Finding(lost == 0, f"{lost:,} of {tokens.count:,} ids are never learned; {rows}", "0 ids", fix)
    read = f"the first {epoch.covered:,} of {tokens.count:,} labels come once each; {rows}"
    in_all = getattr(patient.batches, "rows_per_epoch", None)
    if in_all is None:
        return Finding(None, f"{read}; how an epoch ends was not read, as the text is long")
    lost = max(0, tokens.count - in_all * context)
    return Finding(lost == 0, f"{lost:,} of {tokens.count:,} ids are in no row; {read}", "0 ids", fix)


def positions(patient: Patient) -> Finding:
    """Check that position ids start again at 0 with each document and go up by 1 inside it."""
    if patient.epoch.boundary is None:
        return Finding(None, "no document begins inside a row of what was read")
    batch = patient.epoch.boundary[0]
    first = begins(batch, patient.stream_eos)[:, 1:]
    expected = torch.where(first, 0, batch.position_ids[:, :-1] + 1)
    right = int((expected == batch.position_ids[:, 1:])[first].sum())
    steady = bool((expected == batch.position_ids[:, 1:])[~first].all())
    measured = f"{right} of {int(first.sum())} documents inside rows begin at position 0"
    measured += "" if steady else ", and positions skip inside a document"
    fix = "Count positions from 0 at each end-of-text id."
    return Finding(right == int(first.sum()) and steady, measured, "all of them", fix)


def shared_text(patient: Patient) -> Finding:
    """Look for validation text in the training text: whole documents, and long spans."""
    if patient.shared is not None:
        return patient.shared
    if patient.train is None or patient.validation is None:
        return Finding(None, "there is no validation text to compare")
    found = find_overlap(patient.train, patient.validation)
    share = found.leaked / found.tokens
    measured = (
        f"{len(found.documents)} equal documents; {share:.2%} of the validation text in {SPAN}-token spans of the"
    )
    measured += f" training text (and {found.formulas / found.tokens:.2%} in formulas)"
    measured += ", in a sample of it" if found.sampled else ""
    if found.documents:
        measured += f"; for example {found.documents[0]}"
    elif share > MOST_SHARED:
        measured += f"; for example in {found.example}"
    fix = "Remove the copies from the data, or make one document of what belongs together."
    return Finding(not found.documents and share <= MOST_SHARED, measured, f"0, and at most {MOST_SHARED:.0%}", fix)
