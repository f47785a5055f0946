"""Toxic and profane text: own word lists in English and Chinese, and a small linear classifier for English.

The score of a document lies between 0 and 1. It is the larger of two numbers:

- word list: 1 where a twentieth of the words is strong language, less in proportion. English words are whole words
  (Scunthorpe is safe), also with digits and stars for letters; Chinese ones are substrings, but not in exceptions
  (操 alone, 操作 and 干净 are safe). Mild words are counted and do not score.
- classifier: the share of passages (about ``PASSAGE`` letters) that a logistic regression on hashed character n-grams
  calls toxic (Weinberger et al., 2009, Feature Hashing), in texts with a word of the list, be it a mild one. English
  only: no honestly labelled Chinese text was within reach. ``benchmarks/train_toxicity.py`` made its weights.

Off by default, because such filters are biased: those of C4 removed text by and about minorities far more often than
other text (Dodge et al., 2021, Documenting Large Webtext Corpora), and medicine, law and novels speak of bodies and
curse. Mark first, look at the ledger, then choose a threshold. Code and tables are left alone: ``die () {`` is a shell.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from bimo.config import setting
from bimo.text.document import Document, Drop, Step

WORDS_FILE = Path(__file__).with_name("toxicity_words.txt")
WEIGHTS_FILE = Path(__file__).with_name("toxicity_weights.safetensors")
STRONG_SHARE = 0.05  # of the words: the word list's score is 1 from here on
PASSAGE = 240  # letters and spaces that the classifier judges at a time
NGRAMS = (2, 3, 4, 5)
BUCKET_BITS = 17
_DISGUISES = {"a": "a4@*", "e": "e3*", "i": "i1*", "o": "o0*", "u": "u*", "s": "s5$", "t": "t7"}


@dataclass(frozen=True)
class Config:
    """Whether toxic documents are looked for, and what becomes of them."""

    on: bool = setting(False, "look for toxic and profane documents; off, because such filters are biased")
    action: Literal["mark", "drop"] = setting("mark", "mark: a note in the ledger; drop: leave the document out")
    threshold: float = setting(0.5, "score from which a document is toxic, between 0 and 1")


@dataclass(frozen=True)
class Measure:
    """What was counted in a text: words (a Chinese character is half a word) and passages read by the classifier."""

    words: int
    strong: int
    mild: int
    passages: int
    toxic_passages: int

    @property
    def list_score(self) -> float:
        """Between 0 and 1, by the word list."""
        return min(1.0, self.strong / max(1, self.words) / STRONG_SHARE)

    @property
    def classifier_score(self) -> float:
        """Between 0 and 1, by the classifier; 0 for text that is not English."""
        return self.toxic_passages / max(1, self.passages)

    @property
    def score(self) -> float:
        """The larger of the two."""
        return max(self.list_score, self.classifier_score)


@dataclass(frozen=True)
class Lexicon:
    """The word lists: English words with their disguises and weight (1 strong, 0 mild), phrases, Chinese patterns."""

    english: dict[str, int]
    phrases: tuple[str, ...]
    chinese: re.Pattern[str]
    chinese_strong: frozenset[str]
    chinese_excepted: frozenset[str]


@functools.cache
def lexicon() -> Lexicon:
    """Read the word lists of the package."""
    sections: dict[str, list[str]] = {}
    for line in WORDS_FILE.read_text(encoding="ascii").splitlines():
        if line.startswith("["):
            words = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            words.append(base64.b64decode(line).decode("utf-8"))
    english = dict.fromkeys(sections["en mild"], 0)
    english |= {shown: 1 for word in sections["en strong"] for shown in _disguised(word)}
    chinese = [*sections["zh except"], *sections["zh strong"], *sections["zh mild"]]
    chinese.sort(key=len, reverse=True)  # the longest wins: an exception over the word in it
    pattern = re.compile("|".join(map(re.escape, chinese)))
    return Lexicon(
        english,
        tuple(sections["en phrase"]),
        pattern,
        frozenset(sections["zh strong"]),
        frozenset(sections["zh except"]),
    )


def _disguised(word: str) -> Iterator[str]:
    """The word, also with a digit, sign or star in place of some letters, as ``a55hole``; never without any letter."""
    for letters in itertools.product(
        *(_DISGUISES.get(letter, letter) if at else letter for at, letter in enumerate(word))
    ):
        if sum(map(str.isalpha, letters)) * 2 > len(word):
            yield "".join(letters)


_HAN = re.compile("[\u3400-\u9fff]+")
_MARKS = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum() and chr(code) not in "@$*"})


def measure(text: str, language: str = "") -> Measure:
    """Count strong and mild words, and the passages that the classifier, which reads English, calls toxic."""
    known = lexicon()
    lower = text.lower()
    words = lower.translate(_MARKS).split()
    found = [known.english[word] for word in words if word in known.english]
    strong, mild = sum(found), len(found) - sum(found)
    strong += sum(lower.count(phrase) for phrase in known.phrases)
    runs = [] if text.isascii() else _HAN.findall(text)
    if runs:
        for match in known.chinese.finditer(text):
            strong += match[0] in known.chinese_strong
            mild += match[0] not in known.chinese_strong and match[0] not in known.chinese_excepted
    han = sum(map(len, runs))
    probabilities = classify(lower) if language in ("", "en") and han * 4 <= len(text) else np.empty(0)
    # Alone, the classifier takes articles on skulls and mustard for toxic; a listed word must stand by it.
    toxic = int((probabilities >= 0.5).sum()) if strong + mild else 0
    return Measure(max(0, len(words) - len(runs)) + han // 2, strong, mild, len(probabilities), toxic)


def classify(text: str) -> npt.NDArray[np.float64]:
    """The probability of each passage of an English text to be toxic; empty where there is too little to judge."""
    weights, bias = _weights()
    buckets, starts = features(text)
    if not len(starts):
        return np.empty(0)
    sizes = np.diff(np.append(starts, len(buckets)))
    logits = np.add.reduceat(weights[buckets], starts) / np.sqrt(sizes) + bias
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), np.float64)


def features(text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The hashed character n-grams of a text, passage by passage.

    Letters in lower case, everything else one space.

    Returns:
        the buckets of all n-grams, below ``2**BUCKET_BITS``, and where in them each passage starts.
    """
    codes = np.frombuffer(text.lower().encode("ascii", "replace"), np.uint8)
    codes = np.where(codes - np.uint8(ord("a")) < 26, codes - np.uint8(ord("a") - 1), np.uint8(0))
    kept = np.append(True, (codes[1:] != 0) | (codes[:-1] != 0)) if len(codes) else np.empty(0, bool)
    letters = np.concatenate(([0], codes[kept], [0])).astype(np.uint32)
    count = len(letters) - max(NGRAMS) + 1
    if count < 8:
        return np.empty(0, np.uint32), np.empty(0, np.int64)
    hashed = np.empty((count, len(NGRAMS)), np.uint32)
    number = letters[:count].copy()
    for length in range(2, max(NGRAMS) + 1):
        number = number * np.uint32(27) + letters[length - 1 : length - 1 + count]
        if length in NGRAMS:
            mixed = (number + np.uint32(length * 0x51ED270B & 0xFFFFFFFF)) * np.uint32(2654435761)  # Knuth's factor
            hashed[:, NGRAMS.index(length)] = (mixed ^ (mixed >> np.uint32(15))) >> np.uint32(32 - BUCKET_BITS)
    passages = max(1, round(count / PASSAGE))
    starts = np.arange(passages, dtype=np.int64) * (count // passages) * len(NGRAMS)
    return hashed.reshape(-1), starts


@functools.cache
def _weights() -> tuple[npt.NDArray[np.float32], float]:
    """One weight a bucket, and the bias."""
    tensors = load_file(WEIGHTS_FILE)
    return tensors["weights"].astype(np.float32) * tensors["scale"], float(tensors["bias"][0])


def build(config: Config) -> Step:
    """The step for a configuration."""

    def step(document: Document) -> Document | Drop:
        if document.kind in ("code", "table"):
            return document
        found = measure(document.text, document.language)
        if found.score < config.threshold or not found.strong + found.toxic_passages:
            return document
        evidence = (
            f"score {found.score:.2f}; word list {found.list_score:.2f}: {found.strong} strong in {found.words} words; "
            f"classifier {found.classifier_score:.2f}: {found.toxic_passages} of {found.passages} passages"
        )
        if config.action == "drop":
            return Drop("toxic", evidence)
        note = f"toxicity: {evidence}"
        return document if note in document.notes else replace(document, notes=(*document.notes, note))

    return step
