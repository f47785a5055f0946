"""What may go into a model and come out of it: words, personal data, toxic passages, classes of text; off unless asked.

A guard is a filter, not a promise: it knows words, patterns and classifiers, and who wants to gets round it.
It is for mistakes and for what the law wants left out; what a model must not know must not be in its training text.

What was stopped is written into a log: when, on which side, by which rule; personal data themselves never.
"""

from __future__ import annotations

import json
import re
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bimo.config import from_mapping, read_yaml, setting
from bimo.errors import ConfigError, did_you_mean
from bimo.text.clean import pii, toxicity

if TYPE_CHECKING:
    from bimo.models.classifier import TextClassifier

REFUSAL = "I cannot help with that. 对此我无法提供帮助。"
HELD = 120  # characters of an answer that wait: what is found in personal data may still grow
BEFORE = 600  # characters already sent that a judgement of new ones takes into account
JUDGED_FROM = 12  # words: a shorter text is judged by the word lists alone
_OPEN_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?!.*-----END [A-Z ]*PRIVATE KEY-----)", re.DOTALL)

Side = Literal["input", "output"]


@dataclass(frozen=True)
class GuardConfig:
    """What a guard looks for; the keys of the file that ``--guard`` names."""

    words: tuple[str, ...] = setting((), "words and phrases that stop a request or an answer")
    word_files: tuple[str, ...] = setting((), "files with one word or phrase a line; # begins a comment")
    personal_data: Literal["redact", "refuse", "keep"] = setting(
        "redact", "personal data and secrets, on both sides: typed placeholders for them, or a refusal"
    )
    toxicity: float | None = setting(0.5, "score from which a text is toxic, between 0 and 1; null judges none")
    classifier: str | None = setting(None, "a run of `bimo tune classify` that judges too, from beside this file")
    classes: tuple[str, ...] = setting((), "classes of it that stop a request or an answer")
    certainty: float = setting(0.5, "their probability, taken together, from which they do")
    refusal: str = setting(REFUSAL, "what is said instead")
    log: str | None = setting(None, "a file that gets one line of JSON for everything that was stopped or redacted")


@dataclass(frozen=True)
class Stopped:
    """Why a text goes no further.

    Attributes:
        rule: "words", "personal data", "toxicity" or "classifier".
        evidence: the word of the list, kinds and counts, or a score.
    """

    rule: str
    evidence: str


@dataclass
class Guard:
    """A configured guard; it may be used by many threads.

    Attributes:
        counts: how often each rule acted, by side and rule: what ``/metrics`` shows.
    """

    config: GuardConfig
    counts: dict[tuple[Side, str], int] = field(default_factory=dict)
    _terms: re.Pattern[str] | None = None
    _classes: Classes | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls, path: Path) -> Guard:
        """The guard that a YAML file describes; word files are looked for beside it.

        Raises:
            ConfigError: a key is unknown, a value wrong, or a file of words missing or no text.
            ModelError: the classifier is none.
        """
        config = from_mapping(GuardConfig, read_yaml(path), where=str(path))
        if config.toxicity is not None and not 0 < config.toxicity <= 1:
            raise ConfigError("toxicity is wrong.", expected="a number above 0, up to 1", got=repr(config.toxicity))
        terms = list(config.words)
        for name in config.word_files:
            terms += _read_terms(path.parent / name)
        return cls(config, _terms=_pattern(terms), _classes=_read_classes(config, path.parent))

    def question(self, text: str, request: str) -> str | Stopped:
        """The text as the model may see it, or why it may not.

        Args:
            request: the id of the request, for the log.
        """
        if stopped := self.judge(text):
            self.record("input", request, stopped)
            return stopped
        return self._redacted(text, "input", request)

    def answer(self, request: str) -> Answer:
        """A filter for one answer that is being written."""
        return Answer(self, request)

    def judge(self, text: str) -> Stopped | None:
        """What is wrong with a text, personal data aside unless they are refused."""
        if self._terms is not None and (found := self._terms.search(_plain(text))):
            return Stopped("words", found[0])
        if self.config.personal_data == "refuse" and (findings := pii.find(text)):
            return Stopped("personal data", pii.counted(findings))
        if self.config.toxicity is not None:
            measured = toxicity.measure(text)
            score = measured.score if measured.words >= JUDGED_FROM else float(measured.strong > 0)
            if score >= self.config.toxicity and measured.strong + measured.toxic_passages:
                return Stopped("toxicity", f"score {score:.2f}")
        if self._classes is not None and text.strip() and (found_class := self._classes.found(text)):
            return Stopped("classifier", found_class)
        return None

    def record(self, side: Side, request: str, stopped: Stopped) -> None:
        """Count and log what was stopped."""
        with self._lock:
            self.counts[side, stopped.rule] = self.counts.get((side, stopped.rule), 0) + 1
            if self.config.log is not None:
                line = {"time": time.time(), "request": request, "side": side}
                line |= {"rule": stopped.rule, "evidence": stopped.evidence}
                with open(self.config.log, "a", encoding="utf-8") as log:
                    log.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _redacted(self, text: str, side: Side, request: str) -> str:
        if self.config.personal_data != "redact":
            return text
        text, findings = pii.redacted(text)
        if findings:
            self.record(side, request, Stopped("personal data", pii.counted(findings)))
        return text


class Answer:
    """An answer on its way out: text leaves when nothing that comes later can change what is thought of it.

    Attributes:
        stopped: why nothing more is said, or None.
        redacted: whether something of what has left so far was replaced.
    """

    def __init__(self, guard: Guard, request: str) -> None:
        self.stopped: Stopped | None = None
        self.redacted = False
        self._guard, self._request = guard, request
        self._text = ""  # all of it
        self._sent = 0  # characters of it that have left

    @property
    def judged(self) -> int:
        """Characters of the answer, as it was written, that have left or were replaced."""
        return self._sent

    def add(self, piece: str) -> str:
        """Take more of the answer; returns what may leave now, often nothing."""
        if self.stopped or not piece:
            return ""
        self._text += piece
        return self._release(self._boundary())

    def end(self) -> str:
        """The rest; to be called when no more comes."""
        return "" if self.stopped else self._release(len(self._text))

    def _boundary(self) -> int:
        """Up to where the text is settled: a blank or full stop well before its end, and before any open secret."""
        settled = len(self._text) - HELD
        ends_here = _ends_here if self._guard._classes is None else _sentence_ends_here  # half of one says little
        if opened := _OPEN_KEY.search(self._text, self._sent):
            settled = min(settled, opened.start())
        while settled > self._sent and not ends_here(self._text, settled):
            settled -= 1
        return settled

    def _release(self, end: int) -> str:
        if end <= self._sent:
            return ""
        begin = max(0, self._sent - BEFORE)
        if stopped := self._guard.judge(self._text[begin:]):
            self._guard.record("output", self._request, stopped)
            self.stopped = stopped
            return ("\n\n" if self._sent else "") + self._guard.config.refusal
        if self._guard.config.personal_data == "redact":
            for found in pii.find(self._text[begin:]):  # a finding is sent as a whole or waits
                if begin + found.start < end < begin + found.end:
                    end = begin + found.start
        if end <= self._sent:
            return ""
        part, self._sent = self._text[self._sent : end], end
        shown = self._guard._redacted(part, "output", self._request)
        self.redacted |= shown != part
        return shown


def _ends_here(text: str, at: int) -> bool:
    before = text[at - 1]
    return before.isspace() or before in "。！？，；、,;!?" or unicodedata.category(before) == "Lo"


def _sentence_ends_here(text: str, at: int) -> bool:
    return text[at - 1] in "。！？!?\n" or (text[at - 1].isspace() and text[: at - 1].endswith("."))


@dataclass(frozen=True)
class Classes:
    """Classes of text that are not wanted, and what tells them apart."""

    classifier: TextClassifier
    numbers: tuple[int, ...]
    certainty: float

    def found(self, text: str) -> str:
        """The class of a text that is not wanted, with its probability; empty if it is another one."""
        probabilities = self.classifier.probabilities([text])[0]
        likeliest = max(self.numbers, key=lambda number: float(probabilities[number]))
        if float(sum(probabilities[number] for number in self.numbers)) < self.certainty:
            return ""
        return f"{self.classifier.labels[likeliest]} {probabilities[likeliest]:.2f}"


def _read_classes(config: GuardConfig, folder: Path) -> Classes | None:
    if config.classifier is None:
        if config.classes:
            raise ConfigError("classes need a classifier.", fix="Add classifier: RUN, a run of bimo tune classify.")
        return None
    from bimo.models.classifier import load_text_classifier

    if not 0 < config.certainty <= 1:
        raise ConfigError("certainty is wrong.", expected="a number above 0, up to 1", got=repr(config.certainty))
    classifier = load_text_classifier(folder / config.classifier)
    known = list(classifier.labels)
    for name in config.classes:
        if name not in known:
            fix = did_you_mean(name, known)
            raise ConfigError(f"{config.classifier} has no class '{name}'.", expected=f"some of {known}", fix=fix)
    if not config.classes:
        raise ConfigError("No class is named.", expected=f"classes: some of {known}", got="none")
    return Classes(classifier, tuple(map(known.index, config.classes)), config.certainty)


def _plain(text: str) -> str:
    """Full-width letters and capitals make no difference to a list of words."""
    return unicodedata.normalize("NFKC", text).casefold()


def _pattern(terms: Sequence[str]) -> re.Pattern[str] | None:
    """Whole words where a term begins or ends with a letter of a script that sets words apart; else anywhere."""
    plain = sorted({_plain(term.strip()) for term in terms if term.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(_bounded, plain))) if plain else None


def _bounded(term: str) -> str:
    def is_spaced(character: str) -> bool:
        return character.isalnum() and unicodedata.category(character) != "Lo"

    words = r"\s+".join(map(re.escape, term.split()))
    return (r"(?<![^\W_])" if is_spaced(term[0]) else "") + words + (r"(?![^\W_])" if is_spaced(term[-1]) else "")


def _read_terms(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path} is no list of words.", expected="a text in UTF-8", got=str(cause)) from None
    return [line for line in lines if not line.startswith("#")]
