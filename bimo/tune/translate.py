"""Translation: one language's text is asked for in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bimo.config import setting
from bimo.evaluate.dictionary import Dictionary, parts_named, together, words_and_marks
from bimo.evaluate.tfidf import Nearest
from bimo.text.scripts import is_chinese
from bimo.tune.asking import Asking, filled
from bimo.tune.rows import Row
from bimo.tune.shapes import text_of
from bimo.tune.split import GROUP
from bimo.tune.task import Role

GROUPS = ("document", "page", "path", "file", "url", "group", "doc_id", "文件", "网页", "文档")
LANGUAGES = {
    "en": "English", "zh": "Chinese", "fr": "French", "de": "German", "es": "Spanish", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "ru": "Russian", "nl": "Dutch", "ar": "Arabic",
}  # fmt: skip


@dataclass(frozen=True)
class Translate(Asking):
    """Learn to translate from pairs of texts; ``source`` and ``target`` are columns named like their languages."""

    source: str = setting("", "column of the text to translate, and its language: en")
    target: str = setting("", "column of its translation, and its language: zh")
    prompt: str = setting("Translate into {language}:\n{text}", "how it is asked for")
    num_beams: int = setting(4, "translations that are followed at once for the likeliest (beam search)")

    @property
    def name(self) -> str:
        return "translate"

    @property
    def roles(self) -> Sequence[Role]:
        sources = (self.source.lower(),) if self.source else ("source", "src", "en", "english", "原文")
        targets = (self.target.lower(),) if self.target else ("target", "tgt", "translation", "zh", "fr", "de", "译文")
        return (Role("source", sources), Role("target", targets), Role(GROUP, GROUPS, False))

    def metrics(self, accepted: Sequence[Sequence[str]]) -> Sequence[str]:
        chinese = is_chinese("\n".join(one for others in accepted for one in others))
        return ("bleu_zh" if chinese else "bleu", "chrf++")

    def rivals(self, train: Sequence[Row], asked: Sequence[Row]) -> Mapping[str, Sequence[str]]:
        """The translation of the nearest text, and a dictionary's of each word."""
        pairs = [(text_of(row.values["source"]), text_of(row.values["target"])) for row in train]
        texts = [text_of(row.values["source"]) for row in asked]
        memory = [pairs[place][1] for place in Nearest([source for source, _ in pairs]).of(texts)]
        dictionary = Dictionary([(words_and_marks(source), words_and_marks(target)) for source, target in pairs])
        part = parts_named("\n".join(text for pair in pairs for text in pair))
        return {
            "translation memory": memory,
            f"dictionary, {part} by {part}": [together(dictionary.translate(words_and_marks(text))) for text in texts],
        }

    @property
    def asked_roles(self) -> Sequence[Role]:
        """In use, the column of the texts need not be named like their language."""
        (source,) = super().asked_roles
        return [Role(source.name, (*source.usual, "text", "sentence", "文本"))]

    def longest(self, question: int) -> int:
        return max(super().longest(question), 2 * question)

    def question(self, values: Mapping[str, Any]) -> str:
        return self.asked(text_of(values["source"]))

    def asked(self, text: str) -> str:
        """How a text is put to the model."""
        language = LANGUAGES.get(self.target.lower(), self.target or "the other language")
        return filled(self.prompt, language=language, text=text)

    def answer(self, values: Mapping[str, Any]) -> str:
        return text_of(values["target"])
