"""A model that labels words, ready for use: texts to their entities, or to the label of every word.

The label of a word is read at its first token. A text that is too long is read in stretches that begin at words.
Shapes: N texts, W words of a text, L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bimo.batches.texts import batches_of
from bimo.errors import ModelError
from bimo.models.heads import Classifier, load_classifier
from bimo.text.entities import Span, are_entities, entities, words_in
from bimo.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Found:
    """A word or an entity.

    Attributes:
        text: as it stands in the text, from the character ``start`` to before ``end``.
        probability: of the label; of an entity the mean over its words.
    """

    text: str
    label: str
    probability: float
    start: int
    end: int


@dataclass(frozen=True)
class Stretch:
    """What the model reads at once.

    Attributes:
        ids: those that stock tools put around a text included.
        at: where in them the first token of each word stands, ascending.
        words: which words these are.
    """

    ids: list[int]
    at: list[int]
    words: list[int]


def stretches(tokenizer: Tokenizer, text: str, words: Sequence[Span], longest: int) -> Iterator[Stretch]:
    """A text in stretches of at most ``longest`` ids; a word that has no token, or shares its first, is in none.

    Args:
        words: where the words stand, in order.
    """
    before, after = tokenizer.around
    ids, places = tokenizer.encode_places(text)
    room, token = longest - len(before) - len(after), 0
    word_at: dict[int, int] = {}
    for number, word in enumerate(words):
        while token < len(ids) and places[token][1] <= word.start:
            token += 1
        if token < len(ids) and places[token][0] < word.end:
            word_at.setdefault(token, number)
    begin = 0
    while begin < len(ids) and room > 0:
        end = begin + room
        if end < len(ids):
            end = max((at for at in word_at if begin < at <= end), default=end)
        here = [at for at in word_at if begin <= at < end]
        if here:
            at = [len(before) + at - begin for at in here]
            yield Stretch([*before, *ids[begin:end], *after], at, [word_at[one] for one in here])
        begin = end


class TokenClassifier:
    """A model with a head for tokens, and its tokenizer.

    Attributes:
        labels: their names, in the order of the scores.
        finds_entities: whether they are B-X, I-X and O; else every word has a label of its own.
        longest: tokens that are read at once, those around them included.
    """

    def __init__(self, model: Classifier, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer, self.labels = model.eval(), tokenizer, model.labels
        self.finds_entities = are_entities(self.labels)
        self.longest: int = model.config.max_position_embeddings

    def label(self, texts: Sequence[str], words: Sequence[Sequence[Span]] | None = None) -> list[list[Found]]:
        """The entities of each text, or its words where labels are not of entities.

        Args:
            words: where those of each text stand, if not where ``words_in`` finds them.
        """
        found = self.label_words(texts, words)
        return [_entities(*one) for one in zip(texts, found, strict=True)] if self.finds_entities else found

    @torch.inference_mode()
    def label_words(self, texts: Sequence[str], words: Sequence[Sequence[Span]] | None = None) -> list[list[Found]]:
        """Every word of each text with its likeliest label, O too; a word without a token is left out."""
        words = [words_in(text) for text in texts] if words is None else words
        parts = [
            (number, stretch)
            for number, text in enumerate(texts)
            for stretch in stretches(self.tokenizer, text, words[number], self.longest)
        ]
        said: list[dict[int, tuple[str, float]]] = [{} for _ in texts]
        device = self.model.output_weight.device
        for batch in batches_of([stretch.ids for _, stretch in parts]):
            at = torch.zeros_like(batch.input_ids, dtype=torch.bool)
            for row, place in enumerate(batch.places):
                at[row, parts[place][1].at] = True
            scores = self.model(batch.input_ids.to(device), at.to(device), segment_ids=batch.segment_ids.to(device))
            best = iter(zip(*(one.tolist() for one in scores.softmax(dim=-1).max(dim=-1)), strict=True))
            for place in batch.places:
                number, stretch = parts[place]
                for word in stretch.words:
                    probability, label = next(best)
                    said[number][word] = self.labels[label], probability
        return [
            [Found(text[slice(*here[word])], *one[word], *here[word]) for word in sorted(one)]
            for text, here, one in zip(texts, words, said, strict=True)
        ]


def load_token_classifier(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> TokenClassifier:
    """Load a run of `bimo tune label`, or a Hugging Face folder of a supported encoder with a head for tokens.

    Raises:
        ModelError: the folder holds no such model.
        TokenizerError: it holds no tokenizer.
    """
    model = load_classifier(folder, device=device, dtype=dtype)
    if model.kind != "tokens":
        raise ModelError(f"{folder} classifies whole texts.", expected="a model that labels words", got=model.kind)
    return TokenClassifier(model, Tokenizer.load(folder))


def _entities(text: str, words: Sequence[Found]) -> list[Found]:
    found = []
    for one in entities([word.label for word in words]):
        of_it = words[one.start : one.end]
        start, end = of_it[0].start, of_it[-1].end
        probability = sum(word.probability for word in of_it) / len(of_it)
        found.append(Found(text[start:end], one.kind, probability, start, end))
    return found
