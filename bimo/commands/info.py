"""``bimo info``: what a run was made from, at what cost, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bimo.commands.results import counted, print_json, print_table
from bimo.errors import RunError

Row = tuple[str, str]

EXPECTED = {
    "wall_seconds": "{:,.0f} s in all",
    "training_seconds": "{:,.0f} s of training",
    "peak_memory_bytes": "{:,.0f} MB of memory",
    "disk_bytes": "{:,.1f} MB of disk",
    "bits_per_byte": "{:.3f} bits per byte",
}
SCALES = {"peak_memory_bytes": 1e6, "disk_bytes": 1e6}


def info(run: Path, /, *, json: bool = False) -> None:
    """Say what a run is: lineage, cost, metrics and plan.

    For a run that is not finished, also how far it has come.

        bimo info runs/quickstart
        bimo info runs/quickstart --json

    Args:
        run: a run directory
        json: print JSON: the lineage, and the newest line of the metrics
    """
    from bimo.run import Run

    opened = Run(run) if Run(run).imported else Run.open(run)
    lineage = opened.read_lineage()
    newest = (opened.read_metrics() or [{}])[-1]
    if json:
        print_json({"run": str(run), **lineage, "newest": newest})
        return
    try:
        rows = [("run", str(run))]
        if opened.imported:
            rows += _imported(lineage)
        else:
            rows += [*_origin(lineage), *_progress(lineage, newest), *_metrics(lineage["metrics"])]
            rows += _plan_errors(lineage.get("plan", {}))
        choices = [(one["key"], str(one["value"]), one["reason"]) for one in lineage.get("plan", {}).get("choices", ())]
        events = list(map(str, lineage["events"]))
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        got = f"{type(cause).__name__}: {cause}"
        raise RunError(f"{opened.lineage} is damaged.", expected="the lineage that training wrote", got=got) from None
    print_table(("", ""), rows)
    if choices:
        print()
        print_table(("the plan chose", "", "because"), choices)
    if events:
        print("\nwhat happened on the way")
        print("\n".join(f"  {event}" for event in events))


def _imported(lineage: Mapping[str, Any]) -> Iterator[Row]:
    source, tokenizer, model = lineage["source"], lineage["tokenizer"], lineage["model"]
    yield "what", f"{source.get('name') or 'a model without a name'}, imported {lineage['created']}"
    yield "from", f"{source['file']}, {source['bytes']:,} bytes, hash {source['sha256'][:16]}"
    yield "", f"{source['format']}, {source['architecture']}, stored as {source['quantisation']}"
    makers = [source[key] for key in ("organization", "author", "base_model", "url", "repository") if source.get(key)]
    if makers:
        yield "makers say", ", ".join(makers)
    yield "licence", source.get("licence") or "not known"
    yield "tokenizer", f"{tokenizer['vocab_size']:,} tokens, hash {tokenizer['hash'][:16]}"
    inner = f"{model['non_embedding_parameters']:,} of them outside the embeddings"
    yield "model", f"{model['parameters']:,} parameters, {inner}, in {model['dtype']}"


def _origin(lineage: Mapping[str, Any]) -> Iterator[Row]:
    data, tokenizer = lineage["data"], lineage["tokenizer"]
    yield "what", f"{lineage['kind']} model, {lineage['status']}, begun {lineage['created']}"
    yield from _parents(lineage["parent"])
    yield "seed", str(lineage["seed"])
    yield "data", f"{data['source']}: {counted(data['documents'], 'document')}, {data['bytes']:,} bytes"
    yield "", f"licence {data['licence'] or 'not known'}, hash {data['data_hash'][:16]}"
    for part in ("train", "validation", "test"):
        yield "", f"{part} {counted(data[part]['documents'], 'document')}, {data[part]['bytes']:,} bytes"
    if data["skipped"]:
        yield "", f"{counted(len(data['skipped']), 'file')} skipped"
    length = f"{tokenizer['bytes_per_token']:.2f} bytes a token"
    yield "tokenizer", f"{tokenizer['vocab_size']:,} tokens, {length}, hash {tokenizer['hash'][:16]}"
    if "model" in lineage:
        model = lineage["model"]
        inner = f"{model['non_embedding_parameters']:,} of them outside the embeddings"
        yield "model", f"{model['parameters']:,} parameters, {inner}"
    machine = lineage["machine"]
    where = [machine["system"], machine["processor"], counted(machine["threads"], "thread"), machine.get("gpu")]
    yield "machine", ", ".join(filter(None, where))
    yield "versions", ", ".join(f"{name} {version}" for name, version in lineage["versions"].items())


def _parents(parent: Mapping[str, Any] | None) -> Iterator[Row]:
    """The model that a run went on from, and the one before that."""
    name = "parent"
    while parent:
        known = f", run {parent['id']}" if parent.get("id") else ""
        text = f", of {parent['data']['source']}" if parent.get("data") else ""
        yield name, f"{parent['folder']}{text}{known}, weights {parent['weights'][:16]}"
        parent, name = parent.get("parent"), "  and its"
    if name == "parent":
        yield name, "none"


def _progress(lineage: Mapping[str, Any], newest: Mapping[str, Any]) -> Iterator[Row]:
    cost = lineage["cost"]
    used = f"{cost['wall_seconds']:,.0f} s of wall-clock time, {cost['cpu_seconds']:,.0f} s of processor time"
    memory = f", {cost['peak_memory_bytes'] / 1e6:,.0f} MB of memory" if "peak_memory_bytes" in cost else ""
    yield "cost", used + memory
    if lineage["status"] != "finished" and newest:
        yield "newest step", f"{newest['step']:,}, {newest['bits_per_byte']:.3f} bits per byte of training text"


def _metrics(metrics: Mapping[str, Any]) -> Iterator[Row]:
    if not metrics:
        return
    if "test_bits_per_byte" in metrics:  # a trial of a sweep is measured on it only if it is the best
        yield "held-out text", f"{_measured(metrics['test_bits_per_byte'], 3)} bits per byte"
        yield "", f"{_measured(metrics['test_perplexity'], 1)} perplexity"
    best = f"{metrics['validation_bits_per_byte']:.3f} bits per byte"
    yield "validation", f"{best}, best at step {metrics['best_step']:,}"
    epochs = f"{metrics['epochs']:.1f} times the text"
    yield "training", f"{counted(metrics['steps'], 'step')}, {metrics['tokens']:,} tokens, {epochs}"
    for name, value in metrics.get("baselines", {}).items():
        yield f"against {name}", _measured(value, 3) + " bits per byte"


def _plan_errors(plan: Mapping[str, Any]) -> Iterator[Row]:
    """What was predicted before step 1, and by how much too high (+) or too low (-) that was."""
    label = "plan against reality"
    for name, error in plan.get("errors", {}).items():
        expected = plan["predicted"][name]
        value = expected["value"] if isinstance(expected, Mapping) else expected
        yield (
            label,
            f"{EXPECTED.get(name, name + ' {:,.0f}').format(value / SCALES.get(name, 1))} expected, {error:+.1%}",
        )
        label = ""


def _measured(value: Mapping[str, Any], digits: int) -> str:
    shown = f"{value['value']:,.{digits}f}"
    if value.get("low") is None:
        return shown
    return f"{shown} (95%: {value['low']:,.{digits}f} to {value['high']:,.{digits}f})"
