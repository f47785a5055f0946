"""``bimo classify``: the classes of texts, by a model that was tuned for them."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bimo.commands import Device
from bimo.commands.results import print_json, print_table, text_argument, visible
from bimo.errors import UsageError

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
    """Say which class a text is of, and how surely.

    Of the rows of a file, one line each: the class, its probability, the text.

        bimo classify runs/sentiment "What a film!"
        bimo classify runs/sentiment - < letter.txt
        bimo classify runs/sentiment --data reviews.csv --json > labelled.jsonl

    Args:
        run: a run of `bimo tune classify`, or a Hugging Face folder with such a head
        text: the text; - reads it from standard input
        data: files with a text in each row: csv, tsv, json, jsonl or parquet
        text_column: the column of the texts, where its name does not say
        json: print JSON, of rows one object a line
        device: where to compute; auto takes the best device present
    """
    if (text is None) == (data is None):
        got = "neither" if text is None else "both"
        raise UsageError("There is nothing to classify.", expected="a text, or --data FILE", got=got)
    from bimo.device import resolve_device
    from bimo.models.classifier import load_text_classifier

    model = load_text_classifier(run, device=resolve_device(device))
    if data is not None:
        for row in _rows(data, text_column):
            texts = [str(one.values["text"]) for one in row]
            for one, said, found in zip(row, texts, model.probabilities(texts), strict=True):
                named = _named(model.labels, found)
                label = next(iter(named))
                if json:
                    line: dict[str, Any] = {"row": one.number, "where": one.where, "text": said, "label": label}
                    print(json_module.dumps(line | {"probabilities": named}, ensure_ascii=False))
                else:
                    print(f"{visible(label)}\t{named[label]:.3f}\t{visible(said)}")
        return
    said = text_argument(text or "")
    if not said.strip():
        raise UsageError("There is nothing to classify.", expected="a text", got="an empty one")
    named = _named(model.labels, model.probabilities([said])[0])
    if json:
        print_json({"text": said, "label": next(iter(named)), "probabilities": named})
        return
    shown = ((visible(label), f"{share:.1%}") for label, share in named.items())
    print_table(("class", "probability"), shown, right=("probability",))


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
