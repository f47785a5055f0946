"""Question answering: yes or no, a span of the passage, or free words; with a passage (open book) or without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bimo.config import setting
from bimo.tune.asking import Asking, filled
from bimo.tune.shapes import Unshaped, text_of
from bimo.tune.task import Role

ROLES = (
    Role("question", ("question", "query", "prompt", "instruction", "问题", "提问")),
    Role("answer", ("answer", "answers", "label", "output", "response", "gold", "答案", "回答")),
    Role(
        "passage", ("passage", "context", "paragraph", "document", "article", "story", "input", "段落", "文章"), False
    ),
)
TRUE, FALSE = {"true", "yes", "1", "y", "是", "对", "正确"}, {"false", "no", "0", "n", "否", "不", "不是", "错误"}


@dataclass(frozen=True)
class QA(Asking):
    """Learn to answer questions, about a passage where the rows have one."""

    kind: Literal["auto", "yes-no", "extractive", "free"] = setting(
        "auto", "yes-no: answers are yes or no, however written; extractive: they stand in the passage, or are refused"
    )
    prompt: str = setting("{passage}\n\nQuestion: {question}", "how a question about a passage is asked")
    yes: str = setting("yes", "what a yes is called")
    no: str = setting("no", "what a no is called")

    @property
    def name(self) -> str:
        return "qa"

    @property
    def roles(self) -> Sequence[Role]:
        return ROLES

    @property
    def shortened(self) -> str:
        return "passage"

    @property
    def choices(self) -> tuple[str, ...]:
        return (self.yes, self.no) if self.kind == "yes-no" else ()

    def question(self, values: Mapping[str, Any]) -> str:
        passage = values.get("passage")
        return self.asked(text_of(values["question"]), None if passage in (None, "") else text_of(passage))

    def asked(self, question: str, passage: str | None = None) -> str:
        """How a question is put to the model."""
        return question if passage is None else filled(self.prompt, passage=passage, question=question)

    def answer(self, values: Mapping[str, Any]) -> str:
        said = _first(values["answer"])
        plain = said.strip().lower()
        truth = True if plain in TRUE else False if plain in FALSE else None
        boolean = isinstance(values["answer"], bool) or plain in ("true", "false")
        if truth is not None and (self.kind == "yes-no" or (self.kind == "auto" and boolean)):
            return self.yes if truth else self.no
        if self.kind == "yes-no":
            raise Unshaped("an answer that is neither yes nor no")
        if self.kind == "extractive" and said not in text_of(values.get("passage") or ""):
            raise Unshaped("an answer that does not stand in its passage")
        return said

    def place(self, values: Mapping[str, Any], said: str) -> tuple[int, int] | None:
        begin = -1 if self.kind == "free" or not said else text_of(values.get("passage") or "").find(said)
        return None if begin < 0 else (begin, begin + len(said))


def _first(value: Any) -> str:
    """The first of the answers that a row allows: a text, a list of them, or SQuAD's ``{"text": [...]}``."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Mapping):
        value = value.get("text", value.get("answer"))
    if isinstance(value, list):
        if not value:
            raise Unshaped("no answer")
        return _first(value[0])
    return text_of(value)
