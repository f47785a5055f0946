"""Labels of words: named entities, parts of speech. An encoder labels each word at its first token; others don't count.

In a script without spaces nobody can tell words before they are found, so that there each character is one: a word of
several is labelled B-X, I-X, I-X, and finding words and labels is one task (Ng & Low 2004).
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from bimo.config import setting
from bimo.evaluate.known_labels import Labelled, commonest_label, commonest_of_word, longest_known
from bimo.evaluate.metrics import METRICS
from bimo.evaluate.significance import measure
from bimo.models.token_classifier import stretches
from bimo.text.entities import Span, are_entities, as_bio, going_on, joined, labels_of, parts_of, words_in
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.classify import EVALUATED_ROWS, Classify, all_scores, label_text
from bimo.tune.examples import Example
from bimo.tune.materials import Materials
from bimo.tune.packing import pack, packed_once
from bimo.tune.rows import Row
from bimo.tune.task import Refused, Role

ROLES = (
    Role("tokens", ("tokens", "words", "词语", "分词"), needed=False),
    Role("text", ("text", "sentence", "content", "文本", "句子", "内容"), needed=False),
    Role("labels", ("labels", "ner_tags", "pos_tags", "tags", "ner", "pos", "label", "标签", "标注"), needed=False),
    Role("spans", ("spans", "entities", "实体"), needed=False),
)
SPAN_LABELS = ("label", "type", "entity", "tag")
Scheme: TypeAlias = Literal["words", "characters", "entities"]
IGNORED = ("", "-100")  # what stands where a word has no label


@dataclass(frozen=True)
class Marked:
    """A text with labels.

    Attributes:
        words: where the words with a label stand, in characters.
        labels: one for each.
    """

    text: str
    words: Sequence[Span]
    labels: Sequence[str]


@dataclass(frozen=True, eq=False)
class Tagged(Example):
    """A stretch of a text, and the words in it whose labels it learns."""

    words: Sequence[str] = ()


@dataclass(frozen=True)
class Label(Classify):
    """Learn the labels of the words of a text."""

    names: tuple[str, ...] = setting((), "names of labels that are numbers, from 0")
    scheme: Scheme = setting(
        "words", "what the labels are of, which the data say; entities and the words of characters have B-X, I-X and O"
    )

    kind = "tokens"
    wanted = "tokens and labels, or text and spans"
    labelled = "words"
    label_role = "labels"

    @property
    def name(self) -> str:
        return "label"

    @property
    def roles(self) -> Sequence[Role]:
        return ROLES

    def settled(self, rows: Sequence[Row]) -> Self:
        """With the labels of the data, and what they are of.

        Raises:
            DataError: there are none, only one, or as many as there are words; or one that was not named.
        """
        given = [one for row in rows if not isinstance(one := self._given(row), Refused)]
        scheme: Scheme = "words"
        if are_entities(label for one in given for label in one.labels):
            scheme = "entities"
        elif any(len(parts_of(one.text[slice(*word)])) > 1 for one in given for word in one.words):
            scheme = "characters"
        task = dataclasses.replace(self, scheme=scheme)
        marked = [one for row in rows if not isinstance(one := task.marked(row), Refused)]
        return task.knowing(Counter(label for one in marked for label in one.labels))

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        found = self.marked(row)
        return found if isinstance(found, Refused) else (found.text, " ".join(found.labels))

    def marked(self, row: Row) -> Marked | Refused:
        """The text of a row with the labels that are learned, character by character where there are no spaces."""
        given = self._given(row)
        if isinstance(given, Refused):
            return given
        if self.scheme == "words":
            return given
        words, labels = [], []
        for word, label in zip(given.words, given.labels, strict=True):
            first = as_bio(label) if self.scheme == "entities" else f"B-{label}"
            for number, part in enumerate(parts_of(given.text[slice(*word)])):
                words.append(Span(word.start + part.start, word.start + part.end))
                labels.append(going_on(first) if number else first)
        return Marked(given.text, words, labels)

    def _given(self, row: Row) -> Marked | Refused:
        """The text of a row, and its labels as they are given."""
        values = row.values
        if "tokens" in values:
            return self._of_tokens(as_list(values["tokens"]), as_list(values.get("labels", [])))
        text = values.get("text")
        if not isinstance(text, str) or not (words := words_in(text)):
            return Refused("no text")
        spans = spans_of(values.get("spans", []), len(text))
        return spans if isinstance(spans, Refused) else Marked(text, words, labels_of(words, spans))

    def _of_tokens(self, tokens: Sequence[Any], labels: Sequence[Any]) -> Marked | Refused:
        if len(tokens) != len(labels):
            return Refused("not as many labels as tokens" if labels else "no labels")
        text, words = joined([str(token).strip() for token in tokens])
        said = [label_text(label) for label in labels]
        known = [place for place, word in enumerate(words) if word.end > word.start and said[place] not in IGNORED]
        named = [self._named(said[place]) for place in known]
        if not all(named):
            return Refused("a label without a name")
        return Marked(text, [words[place] for place in known], named) if known else Refused("no word with a label")

    def _named(self, label: str) -> str:
        """A label by its name, if labels are numbers with names; empty where it has none."""
        if not self.names or not label.isdecimal():
            return label
        return self.names[int(label)] if int(label) < len(self.names) else ""

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Tagged] | Refused:
        said = self.marked(row)
        if isinstance(said, Refused):
            return said
        number_of = {label: number for number, label in enumerate(self.classes)}
        found = []
        for one in stretches(tokenizer, said.text, said.words, longest):
            counts, labels = np.zeros(len(one.ids) + 1, dtype=np.bool_), np.zeros(len(one.ids), dtype=np.int64)
            counts[np.array(one.at) + 1] = True  # as if it were the next id
            labels[one.at] = [number_of[said.labels[word]] for word in one.words]
            words = [said.text[slice(*said.words[word])] for word in one.words]
            found.append(Tagged(np.array([*one.ids, 0]), counts, row.number, labels=labels, words=words))
        return found or Refused("no token in the text")

    def learned_bytes(self, example: Example, tokenizer: Tokenizer) -> int:
        return example.learned

    def figures(self, model: Any, examples: Sequence[Any], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        scores, _ = all_scores(model, packed_once(examples, EVALUATED_ROWS, length))
        order = [place for row in pack([one.size for one in examples], length) for place in row]
        parts = scores.argmax(dim=-1).split([examples[place].learned for place in order])
        said = dict(zip(order, parts, strict=True))
        predicted = [[self.classes[label] for label in said[place].tolist()] for place in range(len(examples))]
        return {f"test_{name}": found for name, found in self._measured(predicted, examples).items()}

    def baselines(self, materials: Materials) -> dict[str, Any]:
        """The figures of the commonest label, each word's commonest one, and the longest entities that are known."""
        known: list[Labelled] = [(one.words, self._labels(one)) for one in materials.train]  # type: ignore[attr-defined]
        asked = [one.words for one in materials.test]  # type: ignore[attr-defined]
        found = {"the commonest label": commonest_label, "each word's commonest label": commonest_of_word}
        if self.scheme != "words":
            what = "entity" if self.scheme == "entities" else "word"
            found[f"the longest known {what}"] = longest_known
        return {name: self._measured(guess(known, asked), materials.test) for name, guess in found.items()}

    def _measured(self, predicted: Sequence[Sequence[str]], examples: Sequence[Example]) -> dict[str, Any]:
        """The metrics that the labels have, each with its 95% interval over stretches of text."""
        of_entities = () if self.scheme == "words" else ("entity_precision", "entity_recall", "entity_f1")
        wanted = [self._labels(one) for one in examples]
        return {
            name: asdict(measure(METRICS[name], predicted, wanted))
            for name in ("word_accuracy", "word_macro_f1", *of_entities)
        }

    def _labels(self, example: Example) -> list[str]:
        assert example.labels is not None
        return [self.classes[label] for label in example.labels[example.counts[1:]].tolist()]


def as_list(value: Any) -> list[Any]:
    """A list as tables write it: as it is, as JSON, or with spaces between."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split()
        except ValueError:
            value = value.split()
    return list(value) if isinstance(value, (list, tuple)) else [value]


def spans_of(given: Any, characters: int) -> list[tuple[int, int, str]] | Refused:
    """The spans of a text: objects with start, end and label, or such triples, in characters."""
    found = []
    for one in as_list(given):
        if isinstance(one, dict):
            label = next((one[key] for key in SPAN_LABELS if one.get(key) is not None), None)
            one = (one.get("start"), one.get("end"), label)
        if not isinstance(one, (list, tuple)) or len(one) != 3:
            return Refused("a span without start, end and label")
        start, end, label = one
        if not (isinstance(start, int) and isinstance(end, int) and label_text(label)):
            return Refused("a span without start, end and label")
        if not 0 <= start < end <= characters:
            return Refused("a span that is not in its text")
        found.append((start, end, label_text(label)))
    found.sort()
    return Refused("spans that overlap") if any(one[1] > next[0] for one, next in pairwise(found)) else found
