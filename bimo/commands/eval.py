"""``bimo eval``: how well a model predicts text that it has not seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo.commands import Device
from bimo.commands.results import counted, print_json, print_table, with_interval
from bimo.errors import RunError

if TYPE_CHECKING:
    from bimo.evaluate.likelihood import DocumentScore

MOST_ROWS, MOST_SKIPPED = 40, 5


def evaluate(run: Path, /, *, data: list[str] | None = None, json: bool = False, device: Device = "auto") -> None:
    """Measure a model on text that it has not seen.

    Gives bits per byte and perplexity, with 95% intervals. Bits per byte compares
    any two models on the same text; perplexity only models with one tokenizer.

        bimo eval runs/quickstart
        bimo eval runs/quickstart --data letters.txt --json

    Args:
        run: a run directory or a Hugging Face folder
        data: new text, a path or a corpus, can be given several times; the run's own held-out text if not given
        json: print JSON, with every document
        device: where to compute; auto takes the best device present
    """
    from bimo.evaluate.intervals import bits_per_byte, perplexity
    from bimo.evaluate.likelihood import score_documents
    from bimo.generate.language_model import load
    from bimo.text.source import open_source
    from bimo.train.display import Display
    from bimo.train.materials import TEST_FOLDER

    model = load(run, device=device)
    held_out = run / "checkpoints" / TEST_FOLDER
    if not data and not held_out.is_dir():
        fix = "Say what to measure on, with --data PATH."
        raise RunError(f"{run} has no held-out text of its own.", expected=str(held_out), got="no such folder", fix=fix)
    display = Display()
    with display.bar("measuring") as advance:
        source = open_source(*(data or [str(held_out)]), progress=advance)
        context = model.model.config.max_position_embeddings
        scores = score_documents(model.model, source.watched(advance), model.tokenizer, context_length=context)
    for one in source.skipped[:MOST_SKIPPED]:
        display.warn(f"skipped {one}")
    totals = {"bits_per_byte": bits_per_byte(scores), "perplexity": perplexity(scores)}
    facts = {
        "data": source.name,
        "documents": len(scores),
        "bytes": sum(score.bytes for score in scores),
        "tokens": sum(score.tokens for score in scores),
    }
    if json:
        measured = {name: dataclasses.asdict(total) for name, total in totals.items()}
        print_json({**facts, **measured, "per_document": [_facts(score) for score in scores]})
        return
    rows = [
        ("text", f"{facts['data']}: {counted(len(scores), 'document')}, {facts['bytes']:,} bytes"),
        ("bits per byte", with_interval(totals["bits_per_byte"])),
        ("perplexity", with_interval(totals["perplexity"], 1)),
        ("intervals from", totals["bits_per_byte"].resampled),
    ]
    print_table(("", ""), rows)
    print()
    _print_documents(scores)


def _facts(score: DocumentScore) -> dict[str, Any]:
    from bimo.evaluate.intervals import bits_per_byte, perplexity

    return {
        "id": score.id,
        "bytes": score.bytes,
        "tokens": score.tokens,
        "nats": score.nats,
        "bits_per_byte": dataclasses.asdict(bits_per_byte([score])),
        "perplexity": perplexity([score]).value,
    }


def _print_documents(scores: tuple[DocumentScore, ...]) -> None:
    """The documents, those that are hardest to predict first."""
    from bimo.evaluate.intervals import bits_per_byte, perplexity

    ranked = sorted(scores, key=lambda score: -score.nats / max(score.bytes, 1))
    columns = ("document", "bytes", "tokens", "perplexity", "bits per byte")
    rows = [
        (
            score.id,
            f"{score.bytes:,}",
            f"{score.tokens:,}",
            f"{perplexity([score]).value:,.1f}",
            with_interval(bits_per_byte([score])),
        )
        for score in ranked[:MOST_ROWS]
    ]
    print_table(columns, rows, right=columns[1:4])
    if len(ranked) > MOST_ROWS:
        print(f"and {len(ranked) - MOST_ROWS:,} easier ones; --json has all")
