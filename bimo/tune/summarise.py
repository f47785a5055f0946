"""Summaries: a document is given, its summary is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bimo.config import setting
from bimo.evaluate.extracts import central_sentence, first_sentence
from bimo.tune.asking import Asking, filled
from bimo.tune.rows import Row
from bimo.tune.shapes import text_of
from bimo.tune.split import GROUP
from bimo.tune.task import Role

ROLES = (
    Role(
        "document",
        ("document", "article", "text", "content", "body", "dialogue", "description", "正文", "原文", "文章"),
    ),
    Role("summary", ("summary", "highlights", "synopsis", "abstract", "headline", "title", "摘要", "标题", "总结")),
    Role(GROUP, ("page", "path", "file", "url", "group", "doc_id", "文件", "网页", "文档"), False),
)


@dataclass(frozen=True)
class Summarise(Asking):
    """Learn to summarise from documents and their summaries."""

    prompt: str = setting("Summarise:\n{document}", "how it is asked for")

    @property
    def name(self) -> str:
        return "summarise"

    @property
    def roles(self) -> Sequence[Role]:
        return ROLES

    def metrics(self, accepted: Sequence[Sequence[str]]) -> Sequence[str]:
        return ("rouge1", "rouge2", "rougeL")

    def rivals(self, train: Sequence[Row], asked: Sequence[Row]) -> Mapping[str, Sequence[str]]:
        """The first sentence, and the most central one."""
        texts = [text_of(row.values["document"]) for row in asked]
        return {
            "first sentence": [first_sentence(text) for text in texts],
            "TextRank": [central_sentence(text) for text in texts],
        }

    def question(self, values: Mapping[str, Any]) -> str:
        return self.asked(text_of(values["document"]))

    def asked(self, text: str) -> str:
        """How a document is put to the model."""
        return filled(self.prompt, document=text)

    def answer(self, values: Mapping[str, Any]) -> str:
        return text_of(values["summary"])
