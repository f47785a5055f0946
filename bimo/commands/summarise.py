"""``bimo summarise``: summaries of documents, by a model that was tuned for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bimo.commands.answering import Answering, answer_all, text_or_file


def summarise(
    run: Path,
    /,
    *documents: Annotated[str, Parameter(name="DOCUMENT...")],
    answering: Answering | None = None,
) -> None:
    """Summarise documents, files or the rows of a table.

    Asks as the run was tuned to be asked; any chat model summarises too, less
    well. Of several documents, each gets a line.

        bimo summarise runs/summaries report.pdf
        bimo summarise runs/summaries - < letter.txt
        bimo summarise runs/summaries --data docs.jsonl --json > summaries.jsonl

    Args:
        run: a run of `bimo tune summarise`, or a chat model
        documents: files, or texts themselves; - reads standard input
        answering: how texts are read and answers written
    """
    asked = [{"document": text_or_file(word)} for word in documents]
    answer_all(run, "summarise", asked, answering or Answering())
