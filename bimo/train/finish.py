"""The end of a run: the best weights measured on text that no choice was made on, and the documents about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bimo.device import leaving_cores, return_memory
from bimo.evaluate.baselines import measure_baselines
from bimo.evaluate.intervals import bits_per_byte, perplexity
from bimo.evaluate.likelihood import score_documents
from bimo.models import load_model
from bimo.report.card import write_card
from bimo.report.coach import advise
from bimo.report.page import write_page
from bimo.run import Run
from bimo.text.document import Document
from bimo.text.source import open_source
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.forecast import REPORT_BYTES, errors, scored, size_of
from bimo.train.hooks import Best
from bimo.train.lineage import Lineage
from bimo.train.loop import Progress
from bimo.train.materials import TEST_FOLDER, Materials


def finish(
    run: Run,
    config: TrainConfig,
    materials: Materials,
    lineage: Lineage,
    display: Display,
    progress: Progress,
    best: Best,
) -> None:
    """Measure the saved weights on the test documents, then write lineage, model card and report."""
    assert config.model.context
    model = load_model(run.path, device=torch.device(config.device))
    model.fused = bool(config.kernels)
    documents = EvenSample(open_source(run.checkpoints / TEST_FOLDER), lineage.values["plan"].get("test_share", 1.0))
    with display.bar("measuring held-out text"), leaving_cores(config.device, display.warn) as fit_threads:
        if lineage.training_seconds is not None:  # with other budgets all threads, and so the same last digits
            fit_threads()
        scores = score_documents(model, documents, materials.tokenizer, context_length=config.model.context)
    return_memory()
    with display.bar("measuring simpler models"):
        simpler = measure_baselines(
            scores, documents, materials.tokenizer, train=materials.train, validation=materials.validation
        )
    measured = bits_per_byte(scores)
    metrics: dict[str, Any] = {
        "test_bits_per_byte": asdict(measured),
        "test_perplexity": asdict(perplexity(scores)),
        "validation_bits_per_byte": best.bits_per_byte,
        "best_step": best.step,
        "steps": progress.step,
        "tokens": progress.tokens,
        "epochs": round(progress.tokens / materials.train.count, 3),
        "training_seconds": round(progress.seconds, 1),
        **simpler,
    }
    lineage.finish(model, metrics)
    off = score_plan(run, lineage)
    write_card(run)
    write_page(run)
    interval = "" if measured.low is None else f" (95%: {measured.low:.3f} to {measured.high:.3f})"
    display.note(f"held-out text: {measured.value:.3f} bits per byte{interval}; the run is {run.path}")
    if off:
        display.note(f"the plan was off by: {scored(off)}")
    display.note(advise(run.read_metrics(), lineage.values, asdict(config)).sentence.en)


@dataclass(frozen=True)
class EvenSample:
    """Documents with about a share of the bytes, at least one: each that brings the sum nearer to its share."""

    documents: Iterable[Document]
    share: float

    def __iter__(self) -> Iterator[Document]:
        due = 0.0
        for number, document in enumerate(self.documents):
            size = len(document.text.encode("utf-8", "surrogatepass"))
            due += self.share * size
            if due >= size / 2 or number == 0:
                due -= size
                yield document


def score_plan(run: Run, lineage: Lineage) -> dict[str, float]:
    """Record how far off the plan's predictions were; empty for a run that was planned without any."""
    predicted = lineage.values.get("plan", {}).get("predicted")
    if not predicted:
        return {}
    metrics, cost = lineage.values["metrics"], lineage.values["cost"]
    actual = {
        "wall_seconds": cost["wall_seconds"],
        "training_seconds": metrics["training_seconds"],
        "peak_memory_bytes": cost["peak_memory_bytes"],
        "disk_bytes": size_of(run.path) + REPORT_BYTES,
        "bits_per_byte": metrics["test_bits_per_byte"]["value"],
    }
    found = errors(predicted, actual)
    lineage.score_plan(found)
    return found
