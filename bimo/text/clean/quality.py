"""Leaves out what does not read like text, by the published rules for web pages and by a lenient set of our own.

- ``gopher``: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, "Quality filtering".
- ``c4``: Raffel et al. 2020 (JMLR 21), section 2.2. C4 leaves out lines, then judges what is left; here the lines
  are only counted, and the text stays as it was. Lists of bad words are another step.
- ``fineweb``: Penedo et al. 2024 (arXiv 2406.17557), section 3.6, its own three rules, and the rule on lists.
- ``web``: ``gopher`` and ``fineweb`` and those of C4 that FineWeb keeps.
- ``own``: for the text of a person's folder, where a poem, a play, a table of contents or a page of a manual is as
  real as prose: the same measures, with limits that only a dump of numbers, codes or keywords breaks.

The papers define their rules on words set apart by spaces. For Chinese, Japanese and their like words are estimated by
characters (:mod:`bimo.text.measures`), a short line is shorter, and stop words are stop characters. Rules on letters in
a word are not applied where few words have letters. Code and tables are never judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bimo.config import setting
from bimo.text.document import Document, Drop, Step
from bimo.text.measures import Measures, Rule, first_broken, limits_of, measures_of, repeated_characters
from bimo.text.scripts import script_weights
from bimo.text.words import FUNCTION_WORDS

NAN = float("nan")
BULLETS = ("•", "-", "*", "·", "●", "○", "■", "▪", "‣", "–")
ELLIPSES = ("...", "…")
LINE_ENDS = tuple(".!?…。！？．｡")
C4_LINE_ENDS = (*LINE_ENDS, *"\"'”」』")
CLOSERS = "\"'”’»)]」』》）"  # that may stand behind the end of a sentence
SHORT_LINE, SHORT_UNSPACED_LINE = 30, 10  # characters
STOP_WORDS_FROM = 50  # words: a shorter text may well have none
STOP_WORDS_IN = (400, 20_000)  # characters that are looked at; the first are nearly always enough
ENOUGH_STOP_WORDS = 4  # no limit is higher

STOP_WORDS = (
    frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]),  # Gopher's eight
    *FUNCTION_WORDS.values(),
)
STOP_CHARACTERS = (
    frozenset("的了是在不我有他这着个個這們们也就都和与與为為以而之其於于人無无一"),  # Chinese, classical too
    frozenset("のにはをたがでとしれさてもなかいる"),
    frozenset("เปนไมในการท"),
)
STOP_WORD_SCRIPTS = {"Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Han", "Kana"}
_POLICY = re.compile("javascript|terms of use|(?:privacy|cookie) policy|us(?:es|e|e of) cookies", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?][\"'”’)\]]*(?:\s|$)|[。！？]")


@dataclass(frozen=True)
class Config:
    """Which rules a text must pass; a limit that is not set is that of the profile."""

    on: bool = setting(True, "leave out what does not read like text")
    profile: Literal["own", "gopher", "c4", "fineweb", "web"] = setting("own", "whose limits to use")
    min_words: float | None = setting(None, "fewest words")
    max_words: float | None = setting(None, "most words")
    min_word_length: float | None = setting(None, "fewest letters and digits in a word, on average")
    max_word_length: float | None = setting(None, "most letters and digits in a word, on average")
    max_hashes: float | None = setting(None, "most '#', as a share of the words")
    max_ellipses: float | None = setting(None, "most ellipses, as a share of the words")
    max_bullet_lines: float | None = setting(None, "most lines that begin with a bullet, as a share")
    max_ellipsis_lines: float | None = setting(None, "most lines that end in an ellipsis, as a share")
    min_alphabetic_words: float | None = setting(None, "fewest words with a letter, as a share")
    min_stop_words: float | None = setting(None, "fewest different stop words, or stop characters")
    max_lorem_ipsum: float | None = setting(None, "most times that 'lorem ipsum' may stand in it")
    max_curly_brackets: float | None = setting(None, "most opening curly brackets")
    min_sentences: float | None = setting(None, "fewest sentences in the lines that C4 keeps")
    min_ended_lines: float | None = setting(None, "fewest lines that end in a punctuation mark, as a share")
    max_short_lines: float | None = setting(None, "most lines of few characters, as a share")
    max_repeated_line_characters: float | None = setting(None, "most characters in repeated lines, as a share")
    max_line_breaks: float | None = setting(None, "most line ends, as a share of the words: a list has many")


def build(config: Config) -> Step:
    """The step that drops a document at the first rule it breaks."""
    limits = limits_of(config, RULES, PROFILES)

    def step(document: Document) -> Document | Drop:
        if document.kind in ("code", "table"):
            return document
        return first_broken(measures_of(document.text), RULES, limits) or document

    return step


def _per_word(marks: tuple[str, ...]) -> Callable[[Measures], float]:
    return lambda m: sum(map(m.text.count, marks)) / max(m.words, 1)


def _of_lines(count: Callable[[list[str]], int]) -> Callable[[Measures], float]:
    return lambda m: count(m.lines) / max(len(m.lines), 1)


def _word_length(m: Measures) -> float:
    return NAN if m.is_unspaced else m.word_length


def _stop_words(m: Measures) -> float:
    """Different stop words of a language, of the one that has most; nan in scripts without a list."""
    if m.words < STOP_WORDS_FROM:
        return NAN
    if m.facts and m.facts.stop_words >= ENOUGH_STOP_WORDS:
        return int(m.facts.stop_words)
    lists = STOP_CHARACTERS + STOP_WORDS if m.is_unspaced else STOP_WORDS + STOP_CHARACTERS
    found, head = 0, ""
    for size in STOP_WORDS_IN:
        head = m.text[:size]
        there = set(head.lower().split()).union(head if m.unspaced else ())
        for of_one in lists:
            found = max(found, len(there & of_one))
            if found >= ENOUGH_STOP_WORDS:
                return found
    weights = script_weights(head)
    return found if max(weights, key=weights.__getitem__) in STOP_WORD_SCRIPTS else NAN


def _ended(lines: list[str]) -> int:
    return sum(line.rstrip(CLOSERS).endswith(LINE_ENDS) for line in lines)


def _short_lines(m: Measures) -> float:
    limit = SHORT_UNSPACED_LINE if m.is_unspaced else SHORT_LINE
    return sum(len(line) <= limit for line in m.lines) / max(len(m.lines), 1)


def _c4_sentences(m: Measures) -> float:
    """Sentences in the lines that C4 keeps: three words or more, ended by a mark, not about cookies or JavaScript."""
    sentences = 0
    for line in m.lines:
        if line.endswith(C4_LINE_ENDS) and not line.endswith("..."):
            long_enough = line.count(" ") >= 2 or (m.is_unspaced and len(line) >= 5)
            if long_enough and not _POLICY.search(line):
                sentences += max(len(_SENTENCE.findall(line)), 1)
    return sentences


RULES = {
    "min_words": Rule("too few words", lambda m: m.words),
    "max_words": Rule("too many words", lambda m: m.words),
    "min_alphabetic_words": Rule("too few words with letters", lambda m: m.alphabetic_share),
    "min_word_length": Rule("words too short", _word_length),
    "max_word_length": Rule("words too long", _word_length),
    "max_hashes": Rule("too many hash signs", _per_word(("#",))),
    "max_ellipses": Rule("too many ellipses", _per_word(ELLIPSES)),
    "max_bullet_lines": Rule(
        "too many bullet lines", _of_lines(lambda lines: sum(line.startswith(BULLETS) for line in lines))
    ),
    "max_ellipsis_lines": Rule(
        "too many lines end in an ellipsis", _of_lines(lambda lines: sum(line.endswith(ELLIPSES) for line in lines))
    ),
    "min_stop_words": Rule("too few stop words", _stop_words),
    "max_lorem_ipsum": Rule("placeholder text", lambda m: m.text.lower().count("lorem ipsum")),
    "max_curly_brackets": Rule("curly brackets", lambda m: m.text.count("{")),
    "min_sentences": Rule("too few sentences", _c4_sentences),
    "min_ended_lines": Rule("too few lines end in punctuation", _of_lines(_ended)),
    "max_short_lines": Rule("too many short lines", _short_lines),
    "max_repeated_line_characters": Rule("repeated lines", lambda m: repeated_characters(m.lines)),
    "max_line_breaks": Rule("a list", lambda m: m.text.count("\n") / max(m.words, 1)),
}

_GOPHER: dict[str, float] = {
    "min_words": 50,
    "max_words": 100_000,
    "min_word_length": 3,
    "max_word_length": 10,
    "min_alphabetic_words": 0.8,
    "max_hashes": 0.1,
    "max_ellipses": 0.1,
    "max_bullet_lines": 0.9,
    "max_ellipsis_lines": 0.3,
    "min_stop_words": 2,
}
_C4: dict[str, float] = {"max_lorem_ipsum": 0, "max_curly_brackets": 0, "min_sentences": 5}  # 5, as its code has it
_FINEWEB: dict[str, float] = {
    "min_ended_lines": 0.12,
    "max_short_lines": 0.67,
    "max_repeated_line_characters": 0.01,
    "max_line_breaks": 0.3,
}
PROFILES: dict[str, dict[str, float]] = {
    "own": {
        "min_words": 5,
        "min_word_length": 1.5,
        "max_word_length": 20,
        "min_alphabetic_words": 0.3,
        "min_stop_words": 1,
    },
    "gopher": _GOPHER,
    "c4": _C4,
    "fineweb": _FINEWEB,
    "web": {**_GOPHER, **_FINEWEB, **{name: _C4[name] for name in ("max_lorem_ipsum", "max_curly_brackets")}},
}
