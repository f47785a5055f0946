"""``bimo translate``: texts in another language, by a model that was tuned for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bimo.commands.answering import Answering, answer_all, text_or_file


def translate(
    run: Path,
    /,
    *texts: Annotated[str, Parameter(name="TEXT...")],
    target: str | None = None,
    answering: Answering | None = None,
) -> None:
    """Translate texts, files or the rows of a table.

    Asks as the run was tuned to be asked; any chat model translates too, less
    well. Of several texts, each gets a line.

        bimo translate runs/en-zh "Good morning." "Where is the station?"
        bimo translate runs/en-zh letter.txt
        bimo translate runs/en-zh --data strings.csv --json > translated.jsonl
        bimo translate runs/smollm2 "Good morning." --target fr

    Args:
        run: a run of `bimo tune translate`, or a chat model
        texts: texts, or files that hold them; - reads standard input
        target: the language to translate into, such as zh; that of the run if not given
        answering: how texts are read and answers written
    """
    asked = [{"source": text_or_file(word)} for word in texts]
    answer_all(run, "translate", asked, answering or Answering(), settings={"target": target})
