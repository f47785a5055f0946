"""``bimo ask``: answers to questions, by a model that was tuned for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bimo.commands.answering import Answering, answer_all, text_or_file
from bimo.commands.results import text_argument


def ask(
    run: Path,
    /,
    *questions: Annotated[str, Parameter(name="QUESTION...")],
    passage: str | None = None,
    kind: Literal["yes-no", "extractive", "free"] | None = None,
    answering: Answering | None = None,
) -> None:
    """Answer questions, about a passage or without one.

    Asks as the run was tuned to be asked; any chat model answers too, less
    well. Yes and no come with the probability of the answer. With --json, an
    answer that stands in the passage says where, in characters.

        bimo ask runs/qa "Is the moon up?" --passage "The moon is up."
        bimo ask runs/qa "Who signed?" "When?" --passage contract.pdf
        bimo ask runs/qa --data questions.jsonl --json > answered.jsonl

    Args:
        run: a run of `bimo tune qa`, or a chat model
        questions: the questions; - reads one from standard input
        passage: what they are about: a text, or a file that holds it; --passage=- reads standard input
        kind: what answers are: yes-no, extractive (they stand in the passage) or free; as in the run if not given
        answering: how texts are read and answers written
    """
    about = {} if passage is None else {"passage": text_or_file(passage)}
    asked = [{"question": text_argument(word)} for word in questions]
    answer_all(run, "qa", asked, answering or Answering(), settings={"kind": kind}, always=about)
