"""``bimo classify``: the classes of texts, or the labels of their words, by a model that was tuned for them."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo.commands import Device
from bimo.commands.results import print_json, print_table, text_argument, visible
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.models.classifier import TextClassifier
    from bimo.models.token_classifier import Found, TokenClassifier

ROWS_AT_ONCE = 512


def classify(
    run: Path,
    text: str | None = None,
    /,
    *,
    data: list[str] | None = None,
    text_column: str | None = None,
    json: bool = False,
    device: Device = "auto",
) -> None:
    """Say which class a text is of, or which entities are in it.

    Of the rows of a file, one line each: the class, its probability, the text;
    or the entities or words, each with its label.

        bimo classify runs/sentiment "What a film!"
        bimo classify runs/sentiment - < letter.txt
        bimo classify runs/sentiment --data reviews.csv --json > labelled.jsonl
        bimo classify runs/entities "Ada Lovelace lived in London."

    Args:
        run: a run of `bimo tune classify` or `bimo tune label`, or a Hugging Face folder with such a head
        text: the text; - reads it from standard input
        data: files with a text in each row: csv, tsv, json, jsonl or parquet
        text_column: the column of the texts, where its name does not say
        json: print JSON, of rows one object a line; places of entities count characters
        device: where to compute; auto takes the best device present
    """
    if (text is None) == (data is None):
        got = "neither" if text is None else "both"
        raise UsageError("There is nothing to classify.", expected="a text, or --data FILE", got=got)
    from bimo.device import resolve_device
    from bimo.models.classifier import load_text_classifier
    from bimo.models.heads import head_kind
    from bimo.models.token_classifier import load_token_classifier

    load = load_token_classifier if head_kind(run) == "tokens" else load_text_classifier
    model = load(run, device=resolve_device(device))
    if data is not None:
        for rows in _rows(data, text_column):
            texts = [str(one.values["text"]) for one in rows]
            for one, said, (found, line) in zip(rows, texts, _answers(model, texts), strict=True):
                if json:
                    values = {"row": one.number, "where": one.where, "text": said, **found}
                    print(json_module.dumps(values, ensure_ascii=False))
                else:
                    print(line)
        return
    said = text_argument(text or "")
    if not said.strip():
        raise UsageError("There is nothing to classify.", expected="a text", got="an empty one")
    ((found, _),) = _answers(model, [said])
    if json:
        print_json({"text": said, **found})
    elif "labels" in found:
        shown = ((visible(one["text"]), visible(one["label"]), f"{one['probability']:.1%}") for one in found["labels"])
        print_table(("text", "label", "probability"), shown, right=("probability",))
    else:
        classes = ((visible(label), f"{share:.1%}") for label, share in found["probabilities"].items())
        print_table(("class", "probability"), classes, right=("probability",))


def _answers(model: TextClassifier | TokenClassifier, texts: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """What JSON says of each text, and a line for people."""
    from bimo.models.classifier import TextClassifier

    if not isinstance(model, TextClassifier):
        for found in model.label(texts):
            yield (
                {"labels": [_values(one) for one in found]},
                "\t".join(f"{visible(one.text)}/{visible(one.label)}" for one in found),
            )
        return
    for said, found in zip(texts, model.probabilities(texts), strict=True):
        named = _named(model.labels, found)
        label = next(iter(named))
        yield {"label": label, "probabilities": named}, f"{visible(label)}\t{named[label]:.3f}\t{visible(said)}"


def _values(found: Found) -> dict[str, Any]:
    return asdict(found) | {"probability": round(found.probability, 6)}


def _named(labels: tuple[str, ...], probabilities: Any) -> dict[str, float]:
    """The probability of each class, the likeliest first."""
    pairs = sorted(zip(labels, map(float, probabilities), strict=True), key=lambda pair: -pair[1])
    return {label: round(share, 6) for label, share in pairs}


def _rows(data: list[str], text_column: str | None) -> Iterator[list[Any]]:
    """The rows that have a text, some at a time."""
    from bimo.tune.classify import ROLES
    from bimo.tune.columns import by_role, find_columns
    from bimo.tune.rows import read_rows

    rows = read_rows(data)
    columns = find_columns(rows, ROLES[:1], {"text": text_column} if text_column else {})
    found = [named for row in rows.rows if "text" in (named := by_role(row, columns)).values]
    for begin in range(0, len(found), ROWS_AT_ONCE):
        yield found[begin : begin + ROWS_AT_ONCE]
