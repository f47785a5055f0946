"""Passages of evaluation sets are taken out of the text, so that a model is not measured on what it has read.

A passage is 13 words in a row, in any case and with any punctuation, or what surrounds and holds them; it is cut out
with 200 characters on either side, pieces that are left with less than 200 are dropped, and so is a document that would
fall into more than 10 (Brown et al. 2020, "Language models are few-shot learners", appendix C; the same numbers in
Smith et al. 2022, "Using DeepSpeed and Megatron to train Megatron-Turing NLG 530B"). They leave alone what more than 10
documents match, as common phrases; a step sees one document, so ``threshold`` is what there is against phrases.

Where words are not spaced, 20 characters stand for 13 words, as 1.5 make a word of Chinese; so do 20 words and
characters together where both are mixed.

Shapes: W words, P n-grams of a text, G n-grams of the evaluation sets.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bimo import files
from bimo.config import setting
from bimo.errors import ConfigError, DataError
from bimo.text.document import Document, Drop, Step
from bimo.text.shingles import Hashes, Places, Words, places_of, window_hashes, words_of
from bimo.text.source import open_source

PIECE, LAPPED = 1 << 22, 1 << 12  # characters searched at once, and those that are searched with the next ones again
MOST_TABLE_BITS = 24

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Config:
    """Cut the passages of evaluation sets out of the text."""

    on: bool = setting(True, "take out what stands in `against`; without any, there is nothing to do")
    against: tuple[str, ...] = setting((), "files, folders or corpora whose texts the model is to be evaluated on")
    text_column: str = setting("text", "column or key that holds the text in records of `against`")
    template: str = setting("", "makes the text of these records from several columns: '{question} {answer}'")
    encoding: str = setting("auto", "of files of `against` without a byte order mark")
    action: Literal["cut", "drop"] = setting("cut", "cut: the passage and what is around it; drop: the whole document")
    words: int = setting(13, "words in a row that make a passage")
    characters: int = setting(20, "characters in a row that make one in Chinese, Japanese and other unspaced scripts")
    threshold: int = setting(1, "n-grams of a document that must match before anything is done")
    around: int = setting(200, "characters that are cut on either side of a passage")
    shortest: int = setting(200, "characters below which a piece between two cuts is dropped")
    most_pieces: int = setting(10, "pieces of a document above which all of it is dropped")
    index: str = setting("", "the file of the collected n-grams, where `collected` has written it")

    def __post_init__(self) -> None:
        object.__setattr__(self, "on", self.on and bool(self.against or self.index))
        if not 1 <= self.words <= self.characters or min(self.threshold, self.shortest, self.most_pieces) < 1:
            got = f"words {self.words}, characters {self.characters}, threshold {self.threshold}"
            got += f", shortest {self.shortest}, most_pieces {self.most_pieces}"
            expected = "numbers from 1 up, words <= characters"
            raise ConfigError("clean.decontaminate is wrong.", expected=expected, got=got)
        if self.around < 0:
            expected = "a number from 0 up"
            raise ConfigError("clean.decontaminate.around is wrong.", expected=expected, got=str(self.around))


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of evaluation sets.

    Attributes:
        hashes: sorted (G,).
        owner: the first document that has it, as a number in ``names`` (G,).
        names: ids of the documents.
        lengths: words and characters of one n-gram, as in the configuration.
        too_short: how many documents hold none and are not looked for.
    """

    hashes: Hashes
    owner: npt.NDArray[np.int64]
    names: tuple[str, ...]
    lengths: tuple[int, int]
    too_short: int

    def save(self, path: Path) -> None:
        """Write them to a file, whole or not at all."""
        text = np.frombuffer("\n".join(self.names).encode("utf-8", "surrogatepass"), dtype=np.uint8)
        facts = np.array([*self.lengths, self.too_short])
        with files.atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, hashes=self.hashes, owner=self.owner, names=text, facts=facts)

    @classmethod
    def load(cls, path: Path) -> Grams:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                words, characters, too_short = stored["facts"].tolist()
                names = tuple(stored["names"].tobytes().decode("utf-8", "surrogatepass").split("\n"))
                return cls(stored["hashes"], stored["owner"], names, (words, characters), too_short)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as cause:
            got, fix = f"{type(cause).__name__}: {cause}", "Delete it and prepare the text again."
            expected = "n-grams of evaluation sets"
            raise DataError(f"{path} is not usable.", expected=expected, got=got, fix=fix) from None


def fit(documents: Iterable[Document], words: int = 13, characters: int = 20) -> Grams:
    """Collect the n-grams of evaluation sets."""
    names, hashes, owner, too_short = [], [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)], 0
    for number, document in enumerate(documents):
        names.append(document.id.replace("\n", " "))
        found = grams_of(document.text, words, characters)
        hashes.append(found)
        owner.append(np.full(len(found), number))
        too_short += not len(found)
    known, first = np.unique(np.concatenate(hashes), return_index=True)
    return Grams(known, np.concatenate(owner)[first], tuple(names), (words, characters), too_short)


def collected(config: Config, path: Path) -> Config:
    """Collect the n-grams once, in the file ``path``; the configuration with which workers load them.

    Raises:
        DataError: an evaluation set cannot be read, or no text of it is long enough.
    """
    if not config.on:
        return config
    _fit_against(config).save(path)
    return replace(config, index=str(path))


def announcement(config: Config) -> str:
    """What a user must be told once the n-grams are collected: which texts cannot be looked for; else empty.

    Raises:
        DataError: the file of the n-grams is missing or damaged.
    """
    grams = Grams.load(Path(config.index))
    if not grams.too_short:
        return ""
    what = f"{config.words} words, or {config.characters} characters of unspaced scripts"
    found = f"{grams.too_short:,} of {len(grams.names):,} evaluation texts"
    return f"{found} are not looked for: they are shorter than {what} (clean.decontaminate.words)."


def _fit_against(config: Config) -> Grams:
    texts = open_source(
        *config.against, text_column=config.text_column, template=config.template, encoding=config.encoding
    )
    grams = fit(texts.watched(None), config.words, config.characters)
    if not len(grams.hashes):
        expected = f"texts of at least {config.words} words, or {config.characters} characters of unspaced scripts"
        got, fix = f"{len(grams.names)} shorter", "Set clean.decontaminate.words lower; Brown et al. went down to 8."
        raise DataError(f"{', '.join(config.against)} is too short.", expected=expected, got=got, fix=fix)
    return grams


def build(config: Config) -> Step:
    """The step: from the collected n-grams, or from those of ``against``.

    Raises:
        DataError: the evaluation sets cannot be read.
    """
    if not config.on:
        return lambda document: document
    grams = Grams.load(Path(config.index)) if config.index else _fit_against(config)
    assert grams.lengths == (config.words, config.characters), "the n-grams were collected with another configuration"
    search = _Search(grams)

    def decontaminate(document: Document) -> Document | Drop:
        spans, evidence = search(document.text, config.threshold)
        if not spans:
            return document
        if config.action == "drop":
            return Drop("evaluation text", evidence)
        text = document.text
        while spans:  # pieces that were put together may hold another one
            pieces = _pieces(text, spans, config)
            if not 0 < len(pieces) <= config.most_pieces:
                left = f"{len(pieces)} pieces" if pieces else f"no piece of {config.shortest} characters"
                return Drop("evaluation text", f"{evidence}; to cut it out leaves {left}")
            text = "\n\n".join(pieces)
            spans, _ = search(text, config.threshold)
        removed = len(document.text) - len(text)
        return document.changed(text, f"decontaminate: {evidence}, cut out with what is around, {removed} characters")

    return decontaminate


class _Search:
    """Finds the n-grams of the evaluation sets in texts."""

    def __init__(self, grams: Grams) -> None:
        self._grams = grams
        bits = min(MOST_TABLE_BITS, max(10, math.ceil(math.log2(len(grams.hashes) + 1)) + 4))
        self._mask = np.uint64((1 << bits) - 1)
        self._table = np.zeros(1 << bits, dtype=bool)  # tells most n-grams apart without a search
        self._table[grams.hashes & self._mask] = True

    def __call__(self, text: str, threshold: int) -> tuple[Spans, str]:
        """The passages (characters) and what they are, if at least ``threshold`` n-grams match."""
        starts, ends, known = [], [], []
        for begin in range(0, max(len(text), 1), PIECE):
            words = words_of(text[begin : begin + PIECE + LAPPED])
            first, lengths, hashes = _grams(words, *self._grams.lengths)
            near = self._table[hashes & self._mask].nonzero()[0]
            if not len(near):
                continue
            place = places_of(hashes[near], self._grams.hashes)
            near, place = near[place >= 0], place[place >= 0]
            starts += (words.starts[first[near]] + begin).tolist()
            ends += (words.ends[first[near] + lengths[near] - 1] + begin).tolist()
            known += place.tolist()
        if len(known) < threshold:
            return [], ""
        spans = _joined(sorted(zip(starts, ends, strict=True)))
        count = sum(len(words_of(text[start:end]).starts) for start, end in spans)
        owners, times = np.unique(self._grams.owner[known], return_counts=True)
        name = self._grams.names[owners[times.argmax()]]
        others = f" and {len(owners) - 1} other" + "s" * (len(owners) > 2) if len(owners) > 1 else ""
        return spans, f"{count} words of {name}{others}"


def grams_of(text: str, words: int = 13, characters: int = 20) -> Hashes:
    """The hashes of all n-grams of a text (P,), in order."""
    return _grams(words_of(text), words, characters)[2]


def _grams(words: Words, spaced: int, unspaced: int) -> tuple[Places, Places, Hashes]:
    """The first word, the number of words and the hash of every n-gram (P,), in order."""
    hashes = window_hashes(words.hashes, spaced)
    count = len(hashes)
    if not words.unspaced.any():
        return np.arange(count), np.full(count, spaced), hashes
    before = np.concatenate([[0], np.cumsum(words.unspaced)])  # characters of unspaced scripts (W + 1,)
    long = before[spaced:] > before[:count]
    of_long = window_hashes(words.hashes, unspaced)
    hashes[: len(of_long)] = np.where(long[: len(of_long)], of_long, hashes[: len(of_long)])
    lengths = np.where(long, unspaced, spaced)
    first = np.flatnonzero(np.arange(count) + lengths <= len(words.hashes))
    return first, lengths[first], hashes[first]


def _joined(spans: Spans) -> Spans:
    """Sorted spans, those that touch made into one."""
    joined: Spans = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _pieces(text: str, spans: Spans, config: Config) -> list[str]:
    """What is left between the spans and what is around them, in whole words, of some length."""
    wide = _joined([(max(start - config.around, 0), min(end + config.around, len(text))) for start, end in spans])
    words = words_of(text)
    pieces, begin = [], 0
    for start, end in [*wide, (len(text), len(text))]:
        before = int(np.searchsorted(words.ends, start, side="right"))
        stop = len(text) if start == len(text) else int(words.ends[before - 1]) if before else 0
        pieces.append(text[begin:stop].strip() if begin < stop else "")
        after = int(np.searchsorted(words.starts, end))
        begin = int(words.starts[after]) if after < len(words.starts) else len(text)
    return [piece for piece in pieces if len(piece) >= config.shortest]
