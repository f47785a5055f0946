"""Proofs about the model, its loss and its update, each a measurement on copies.

Shapes: B rows, T positions, V vocabulary. Tolerances are stated beside what they are for.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.errors import BimoError
from bimo.models import copy_sharing_frozen, trained_parameters
from bimo.optim import INSIDE_LAYERS
from bimo.optim.rule import numbers
from bimo.train.patient import (
    SOME,
    TINY_LENGTH,
    Finding,
    Patient,
    begins,
    best_rows,
    changed,
    cut,
    exact,
    gradients,
    label_nats,
    value_of,
)
from bimo.train.probe import PRECISIONS

SAME_NATS = 1e-3  # nats by which float32 results may differ that should be the same
SAME_GRADIENT = 1e-3  # of the norm, likewise
SAME_LOSS = 0.01  # of the loss, by which the configured precision may differ from float32
LEAST_LOSS = 3.0  # nats, which take the place of a smaller loss there
SAME_LOGITS = 1e-3  # of the largest logit, by which another implementation may differ
FIRST_LOSS = 0.1  # of ln(V), by which the first loss may miss it


def weights(patient: Patient) -> Finding:
    """Look at every weight."""
    named = list(patient.model.named_parameters())
    broken = [name for name, parameter in named if not bool(parameter.isfinite().all())]
    total = sum(parameter.numel() for _, parameter in named)
    measured = f"{total:,} weights, all finite" if not broken else f"NaN or infinity in {_some(broken)}"
    return Finding(not broken, measured, "finite weights", "Start from other weights, or repair what makes these.")


def one_shift(patient: Patient) -> Finding:
    """Compare the loss with the cross-entropy of the model's own scores at the very positions of the labels.

    On rows of a single position a loss that shifts once more has nothing left; on longer ones it compares neighbours.
    """
    worst, numbers = 0.0, ""
    for length in (1, 8):
        batch = _counting_all(cut(patient.slice, slice(None), slice(0, length)))
        loss, nats = value_of(patient.loss, patient.fresh, batch), float(label_nats(patient.fresh, batch).mean())
        error = abs(loss - nats) if math.isfinite(loss) else math.inf
        if not numbers or error > worst:
            worst, numbers = error, f"loss {loss:.4f} on rows of {length}, cross-entropy at the labels {nats:.4f}"
    fix = "The batch's labels are shifted already: compare logits[:, t] with labels[:, t] in the loss."
    return Finding(worst <= SAME_NATS, numbers, f"equal to {SAME_NATS:g} nats", fix)


def first_loss(patient: Patient) -> Finding:
    """Compare the loss before step 1 with that of a blind guess."""
    loss, blind = patient.first_loss, math.log(patient.tokenizer.vocab_size)
    low = blind * (1 - FIRST_LOSS) if patient.config.model.initial == "random" and not patient.trained else 0.0
    high = math.inf if patient.trained else blind * (1 + FIRST_LOSS)  # what was learned may not fit the new text
    expected = f"{low:.2f} to {high:.2f}" if low else f"at most {high:.2f}"
    fix = "Check how the weights begin: the output's scale, and that no label can be seen before it is predicted."
    measured = f"{loss:.3f} nats, where a blind guess has ln({patient.tokenizer.vocab_size:,}) = {blind:.3f}"
    return Finding(low <= loss <= high and math.isfinite(loss), measured, expected, fix)


def overfits(patient: Patient) -> Finding:
    """Let a copy learn a tiny batch by heart; of updates of low rank it is enough that they learn a fifth of it.

    Beside frozen weights that know nothing yet they cannot: what is frozen leaves no word likely.
    """
    if patient.low_rank and not patient.model.output_weight.requires_grad:
        blind = math.log(patient.tokenizer.vocab_size)
        if patient.first_loss > (1 - FIRST_LOSS) * blind:
            return Finding(None, "beside weights that know nothing yet, updates of low rank learn no batch by heart")
    done = patient.overfitted
    floor = f" (its text leaves {done.floor:.2f})" if done.floor > 0.01 else ""
    measured = f"{done.before:.3f} -> {done.after:.3f} nats in {done.steps} steps{floor}"
    if not done.in_time:
        return Finding(None, f"{measured}, when the time for it was over")
    left = SOME if patient.low_rank else 0.3 if patient.trained else 0.1  # what was learned is in the way at first
    wanted = done.floor + left * done.before
    fix = "Something keeps the model from learning: look at the failed proofs above, the architecture and the labels."
    return Finding(done.after <= wanted, measured, f"at most {wanted:.2f}", fix)


def gradient_norms(patient: Patient) -> Finding:
    """Look at the gradient of every parameter at step 0, and for dead ones at every step of the overfitted copy."""
    found = patient.gradients
    frozen = [
        name for name, p in patient.model.named_parameters() if not p.requires_grad and name not in patient.frozen
    ]
    learning = {name: grad for name, grad in found.items() if name not in patient.frozen and name not in frozen}
    wild = [name for name, grad in learning.items() if grad is not None and not bool(numbers(grad).isfinite().all())]
    dead = [
        name
        for name, grad in learning.items()
        if (grad is None or not bool(numbers(grad).any())) and name not in patient.overfitted.alive
    ]
    problems = {"frozen (requires_grad=False)": frozen, "not finite": wild, "always zero": dead}
    told = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
    fix = "Let these take part: requires_grad, and a path from them to the loss."
    return Finding(not told, told or _layer_norms(learning), "finite and not zero in every layer", fix)


def _layer_norms(found: dict[str, Tensor | None]) -> str:
    squares: dict[str, float] = {}
    for name, grad in found.items():
        layer = INSIDE_LAYERS.search(name)
        key = layer[0].strip(".") if layer else name.removesuffix(".weight").rpartition(".")[2]
        squares[key] = squares.get(key, 0.0) + (0.0 if grad is None else float(numbers(grad).float().square().sum()))
    norms = sorted((square**0.5, key) for key, square in squares.items())
    (low, least), (high, most) = norms[0], norms[-1]
    return f"norms from {low:.2g} ({least}) to {high:.2g} ({most})"


def optimizer(patient: Patient) -> Finding:
    """Take one step on a copy and see who moved."""
    model, grads = copy_sharing_frozen(patient.fresh), patient.take_gradients()
    learning = [name for name, grad in grads.items() if grad is not None and bool(numbers(grad).any())]
    step = patient.make_optimizer(model)
    for name, parameter in model.named_parameters():
        parameter.grad = grads.pop(name)
    norm = step.step(1.0)
    before = dict(patient.fresh.named_parameters())
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    still = [name for name in learning if name not in moved]
    measured = f"{len(learning) - len(still)} of {len(learning)} parameters moved, gradient norm {norm:.3g}"
    measured += f"; still: {_some(still)}" if still else ""
    return Finding(not still, measured, "all of them", "Give every parameter to the optimizer, at a rate above 0.")


def causality(patient: Patient) -> Finding:
    """Change the last quarter of each row and see whether anything before it notices."""
    model, batch = patient.overfitted.model, patient.slice
    T = batch.labels.shape[1]
    kept = T - max(1, T // 4)
    if not kept:
        return Finding(None, "rows of one token have no past")
    ids = torch.cat((batch.input_ids[:, :kept], _other(batch.input_ids[:, kept:], patient)), dim=1)
    before, after = label_nats(model, batch), label_nats(model, changed(batch, input_ids=ids))
    worst = float((before - after)[:, :kept].abs().max())
    measured = f"earlier labels change by {worst:.1g} nats when later tokens do"
    return Finding(worst <= SAME_NATS, measured, f"at most {SAME_NATS:g}", "Mask attention to later positions.")


def packing(patient: Patient) -> Finding:
    """Compare a document inside a packed row with the same document alone."""
    if patient.epoch.boundary is None:
        return Finding(None, "no document begins inside a row of what was read")
    batch, row, begin = patient.epoch.boundary
    end = min(begin + TINY_LENGTH, batch.labels.shape[1])
    start = max(0, begin - TINY_LENGTH)
    following = begins(batch, patient.stream_eos)[row, begin + 1 : end].nonzero()
    end = begin + 1 + int(following[0]) if len(following) else end
    model, rows = patient.overfitted.model, slice(row, row + 1)
    packed = label_nats(model, cut(batch, rows, slice(start, end)).to(patient.device))[:, begin - start :]
    alone = label_nats(model, cut(batch, rows, slice(begin, end)).to(patient.device), alone=True)
    worst = float((packed - alone).abs().max())
    measured = f"{end - begin} labels after {begin - start} tokens of another document differ by {worst:.1g} nats"
    fix = "Pass segment_ids and position_ids to the model, and let attention stay inside a segment."
    return Finding(worst <= SAME_NATS, measured, f"at most {SAME_NATS:g}", fix)


def padding(patient: Patient) -> Finding:
    """Mask the end of each row, then change what is masked, and add a row in which everything is."""
    batch = _masked_unevenly(patient)
    counts = batch.loss_mask
    other_labels = torch.where(counts, batch.labels, _other(batch.labels, patient))
    later = counts.flip(1).cumsum(dim=1).flip(1) == 0  # nothing that counts comes after
    other_ids = torch.where(later, _other(batch.input_ids, patient), batch.input_ids)
    more = cut(batch, torch.arange(counts.shape[0] + 1) % counts.shape[0], slice(None))
    more.loss_mask[-1] = False
    loss = value_of(patient.loss, patient.fresh, batch)
    cases = {
        "other labels where the mask is": changed(batch, labels=other_labels),
        "other text after the last label that counts": changed(batch, input_ids=other_ids),
        "a further row of padding": changed(more),
    }
    errors = {what: abs(value_of(patient.loss, patient.fresh, case) - loss) for what, case in cases.items()}
    what, worst = max(errors.items(), key=lambda item: item[1] if math.isfinite(item[1]) else math.inf)
    measured = f"the loss changes by {worst:.1g} nats" + ("" if worst <= SAME_NATS else f" with {what}")
    fix = "Average over the labels that count, and over nothing else."
    return Finding(worst <= SAME_NATS, measured, f"at most {SAME_NATS:g}", fix)


def accumulation(patient: Patient) -> Finding:
    """Compare the gradient of a batch with that of its parts, in which different numbers of labels count."""
    batch = _masked_unevenly(patient)
    parts = patient.config.batch.accumulate
    rows = batch.labels.shape[0]
    parts = next((n for n in (parts, 2, rows) if n > 1 and rows % n == 0), 0)
    if not parts:
        return Finding(None, "a batch of one row has no parts")
    whole = gradients(patient.loss, patient.fresh, [(batch, 1.0)])
    divided = gradients(patient.loss, patient.fresh, patient.divide(batch, parts))
    square = difference = 0.0
    for name, grad in whole.items():
        other = divided[name]
        if grad is not None and other is not None:
            square += float(grad.float().square().sum())
            difference += float((grad.float() - other.float()).square().sum())
    error = (difference / square) ** 0.5 if square else math.nan
    labels = " + ".join(str(part.tokens) for part, _ in patient.divide(batch, parts))
    measured = f"{parts} passes ({labels} labels) and one differ by {error:.1e} of the gradient"
    fix = "Weight each pass by its share of the step's labels, not by 1 / passes."
    return Finding(error <= SAME_GRADIENT, measured, f"at most {SAME_GRADIENT:g}", fix)


def precision(patient: Patient) -> Finding:
    """Compare the loss as configured with float32, at the first weights and at those of the overfitted copy.

    Where that copy was left half way, its weights are wild, and no precision makes the same of them. Where
    labels are tokens, all are compared, learned or not: a yes after a long question says mostly how it was rounded.
    """
    fast = {"kernels": getattr(patient.model, "fused", False), "compiled": patient.compile is not None}
    how = [patient.config.dtype, *(name for name, on in fast.items() if on)]
    if how == ["float32"]:
        return Finding(None, "float32, neither kernels nor compiled: nothing to compare")
    plain, model = copy_sharing_frozen(patient.fresh), copy_sharing_frozen(patient.model).eval()
    plain.fused = False
    if hasattr(model, "dropout"):
        model.dropout = 0.0
    if hasattr(model, "compute_dtype"):
        model.compute_dtype = PRECISIONS[patient.config.dtype]
    if patient.compile:
        patient.compile(model.train())  # as it was compiled when a step was measured
    batch = patient.pass_batch if patient.classes else _counting_all(patient.pass_batch)
    losses = [(_loss_with_gradients(patient, model, batch), value_of(patient.loss, plain, batch))]
    if patient.overfitted.in_time and not patient.low_rank:  # a few large steps are left half way too
        learned = trained_parameters(patient.overfitted.model)
        with torch.no_grad():
            for one in (model, plain):
                for name, parameter in trained_parameters(one).items():
                    parameter.copy_(learned[name])
        losses.append((_loss_with_gradients(patient, model, batch), value_of(patient.loss, plain, batch)))
    errors = [abs(loss - right) / max(right, LEAST_LOSS) for loss, right in losses]
    worst = max(errors)
    (loss, right) = losses[errors.index(worst)]
    measured = f"{' and '.join(how)} {loss:.4f}, float32 {right:.4f} nats: {abs(loss - right) / right:.2%} apart"
    fix = "Train with --set dtype=float32 compile=false, or find the operation that loses precision."
    return Finding(worst <= SAME_LOSS, measured, f"at most {SAME_LOSS:.0%}, or {SAME_LOSS * LEAST_LOSS:g} nats", fix)


def _counting_all(batch: Batch) -> Batch:
    return changed(batch, loss_mask=torch.ones_like(batch.loss_mask))


def _loss_with_gradients(patient: Patient, model: object, batch: Batch) -> float:
    """With gradients on, as in training: a compiled model has another graph without them."""
    return float(patient.loss(model, batch)[0].detach())


def save_and_load(patient: Patient) -> Finding:
    """Save the overfitted copy, load it and compare its scores bit by bit."""
    model, batch = patient.overfitted.model, best_rows(patient.slice, 1, TINY_LENGTH)
    with tempfile.TemporaryDirectory(dir=patient.folder) as folder:
        try:
            patient.save(model, Path(folder))
            loaded = exact(patient.load(Path(folder))).to(patient.device)
        except BimoError as cause:
            return Finding(False, str(cause), "the same logits", "Repair what saves or loads the model.")
    loaded.fused = model.fused  # how it computes is no part of what is saved
    with torch.no_grad():
        before, after = model(batch.input_ids), loaded(batch.input_ids)
    same = int((before == after).sum())
    measured = f"{same:,} of {before.numel():,} logits are the same bits"
    return Finding(torch.equal(before, after), measured, "all of them", "Save every tensor, in float32.")


def transformers(patient: Patient) -> Finding:
    """Compare with Hugging Face's own implementation, from the same files."""
    if not patient.thorough and "transformers" not in sys.modules:
        return Finding(None, "takes seconds to import; `bimo doctor` does it")
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        return Finding(None, "transformers is not installed (pip install 'bimo[transformers]')")
    model, batch = patient.overfitted.model, best_rows(patient.slice, 1, TINY_LENGTH)
    with tempfile.TemporaryDirectory(dir=patient.folder) as folder:
        patient.save(model, Path(folder))
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if bars:
            logging.enable_progress_bar()
    with torch.no_grad():
        ours, logits = model(batch.input_ids).cpu(), theirs(batch.input_ids.cpu()).logits
    error = float((ours - logits).abs().max() / ours.abs().max())
    measured = f"{ours.numel():,} logits differ by {error:.1e} of the largest"
    return Finding(error <= SAME_LOGITS, measured, f"at most {SAME_LOGITS:g}", "Compare the layers one by one.")


def _masked_unevenly(patient: Patient) -> Batch:
    """The slice with a different number of labels that count in each row, always the first ones."""
    batch = patient.slice
    B, T = batch.labels.shape
    counts = torch.tensor([max(1, T - 1 - row * T // (B + 1)) for row in range(B)], device=patient.device)
    return changed(batch, loss_mask=torch.arange(T, device=patient.device) < counts[:, None])


def _other(ids: Tensor, patient: Patient) -> Tensor:
    """A different id for each, never end-of-text."""
    size, eos = patient.tokenizer.vocab_size, patient.tokenizer.eos_id
    other = (ids * 31 + 7) % size
    other = torch.where(other == ids, (other + 1) % size, other)
    return torch.where(other == eos, (other + 1) % size, other)


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
