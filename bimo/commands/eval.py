"""``bimo eval``: how well a model predicts text that it has not seen, and how well it does tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo.commands import Device
from bimo.commands.results import counted, print_json, print_table, with_interval
from bimo.errors import RunError, UsageError

if TYPE_CHECKING:
    from bimo.evaluate.likelihood import DocumentScore

MOST_ROWS, MOST_SKIPPED = 40, 5


def evaluate(
    run: Path,
    /,
    *,
    data: list[str] | None = None,
    task: list[str] | None = None,
    limit: int | None = None,
    compare: Path | None = None,
    chat: bool = False,
    keep_known: bool = False,
    json: bool = False,
    device: Device = "auto",
) -> None:
    """Measure a model on text it has not seen, or on tasks.

    Of text it gives bits per byte and perplexity. Bits per byte compares any two
    models on the same text; perplexity only models with one tokenizer. Of a task it
    gives the task's metrics. All have 95% intervals. Answers to a task are kept in
    the run's evaluations/ as they come: the same command goes on where it stopped,
    and `bimo errors` shows the worst of them.

        bimo eval runs/quickstart
        bimo eval runs/quickstart --data letters.txt --json
        bimo eval runs/smollm2 --task boolq --task piqa --limit 500
        bimo eval runs/tuned --task mine.yaml --compare runs/smollm2

    Args:
        run: a run directory or a Hugging Face folder
        data: new text, a path or a corpus, can be given several times; the run's own held-out text if not given
        task: a task by name, or a YAML file of your own; can be given several times, `all` for all that come with bimo
        limit: examples of a task at most, drawn fairly
        compare: another run that does the same, with the probability that the difference is chance
        chat: put the prompts of tasks as messages, for a model that learned to chat
        keep_known: count also examples that stand in the run's training text
        json: print JSON, with every document
        device: where to compute; auto takes the best device present
    """
    if task:
        if data:
            raise UsageError("A task has its own data.", expected="--task or --data", got="both")
        from bimo.commands.eval_task import Options, evaluate_tasks

        evaluate_tasks(run, task, Options(limit, compare, chat, keep_known, json, device))
        return
    for name, given in (("--limit", limit), ("--compare", compare), ("--chat", chat or None)):
        if given is not None:
            raise UsageError(f"{name} is for tasks.", fix="Say which with --task NAME.")
    _evaluate_text(run, data, json, device)


def _evaluate_text(run: Path, data: list[str] | None, json: bool, device: Device) -> None:
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
