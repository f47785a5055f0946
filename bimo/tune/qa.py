"""Question answering: yes or no, a span of the passage, or free words; with a passage (open book) or without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bimo.config import setting
from bimo.evaluate.continuations import Group, score_groups
from bimo.evaluate.extracts import fitting_sentence
from bimo.evaluate.likelihood import DocumentScore
from bimo.evaluate.metrics import METRICS
from bimo.evaluate.significance import measure
from bimo.evaluate.tfidf import Nearest, TfIdf, majority
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.answering import spread
from bimo.tune.asking import MOST_KNOWN, Asking, filled
from bimo.tune.examples import Example
from bimo.tune.language import answers_of
from bimo.tune.measure import answer_bytes, answer_figures
from bimo.tune.rows import Row
from bimo.tune.shapes import Unshaped, text_of
from bimo.tune.task import Refused, Role

if TYPE_CHECKING:
    from bimo.tune.materials import Materials

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

    def settled(self, rows: Sequence[Row]) -> QA:
        """With the kind yes-no, where it was to be found out and all answers are one of the two."""
        if self.kind != "auto":
            return self
        said = [found[1] for row in rows if not isinstance(found := self.texts(row), Refused)]
        known = {one.strip().lower() for one in said}
        return dataclasses.replace(self, kind="yes-no") if known and known <= {self.yes, self.no} else self

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

    def accepted(self, row: Row) -> Sequence[str]:
        """Every answer that the row allows, of which the first is learned."""
        return [self.answer(row.values), *(text_of(one) for one in _all(row.values["answer"])[1:])]

    def metrics(self, accepted: Sequence[Sequence[str]]) -> Sequence[str]:
        return () if self.kind == "yes-no" else ("exact_match", "f1")

    def rivals(self, train: Sequence[Row], asked: Sequence[Row]) -> Mapping[str, Sequence[str]]:
        """The commonest answer; a sentence of the passage, or for want of one the answer to the nearest question."""
        answers = [self.answer(row.values) for row in train]
        told: dict[str, Sequence[str]] = {"majority": [majority(answers)] * len(asked)}
        questions = [text_of(row.values["question"]) for row in asked]
        passages = [text_of(row.values.get("passage") or "") for row in asked]
        if any(passages):
            told["sentence nearest to the question"] = list(map(fitting_sentence, questions, passages))
        else:
            nearest = Nearest([text_of(row.values["question"]) for row in train]).of(questions)
            told["answer to the nearest question"] = [answers[place] for place in nearest]
        return told

    def baselines(self, materials: Materials) -> dict[str, Any]:
        """Of yes or no the commonest, and TF-IDF with logistic regression over question and passage."""
        if self.kind != "yes-no":
            return super().baselines(materials)
        texts, answers = self._texts(spread(materials.train, MOST_KNOWN), materials)
        tested, right = self._texts(materials.test, materials)
        chosen = {"majority": [majority(answers)] * len(right)}
        if len({*answers}) > 1:
            chosen["TF-IDF + logistic regression"] = TfIdf(texts, answers).predict(tested)
        return {name: {"accuracy": asdict(measure(METRICS["accuracy"], one, right))} for name, one in chosen.items()}

    def _texts(self, examples: Sequence[Example], materials: Materials) -> tuple[list[str], list[str]]:
        """Questions and answers."""
        values = [materials.rows[example.row].values for example in examples]
        return [self.question(one) for one in values], [self.answer(one) for one in values]

    def figures(self, model: Any, examples: Sequence[Example], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        """Of yes or no also how often the likelier of the two is right, with the end of its turn, as it is learned."""
        if self.kind != "yes-no":
            return super().figures(model, examples, tokenizer, length=length)
        asked = [{"role": "user", "content": "?"}]
        continuations = []
        for answer in (self.yes, self.no):
            (said,) = answers_of(tokenizer).of([*asked, {"role": "assistant", "content": answer}])
            continuations.append([id for id, counts in zip(said.ids, said.counts, strict=True) if counts])
        groups = [Group(one.ids[: int(one.counts.argmax())].tolist(), continuations) for one in examples]
        found = [pair for _, pair in sorted(score_groups(model, groups))]
        chosen = [self.yes if yes.logprob >= no.logprob else self.no for yes, no in found]
        right = [self.yes if one.ids[one.counts].tolist() == continuations[0] else self.no for one in examples]
        scores = []
        for example, answer, pair in zip(examples, right, found, strict=True):
            score = pair[answer == self.no]
            nats = np.full(score.tokens, -score.logprob / score.tokens, dtype=np.float32)
            scores.append(DocumentScore(str(example.row), answer_bytes(example, tokenizer), nats))
        return {**answer_figures(scores), "test_accuracy": asdict(measure(METRICS["accuracy"], chosen, right))}

    def place(self, values: Mapping[str, Any], said: str) -> tuple[int, int] | None:
        begin = -1 if self.kind == "free" or not said else text_of(values.get("passage") or "").find(said)
        return None if begin < 0 else (begin, begin + len(said))


def _all(value: Any) -> list[Any]:
    """The answers that a row allows, one at a time."""
    if isinstance(value, Mapping):
        value = value.get("text", value.get("answer"))
    return value if isinstance(value, list) else [value]


def _first(value: Any) -> str:
    """The first of the answers that a row allows: a text, a list of them, or SQuAD's ``{"text": [...]}``."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (Mapping, list)):
        if not (values := _all(value)):
            raise Unshaped("no answer")
        return _first(values[0])
    return text_of(value)
