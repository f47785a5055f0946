"""The exceptions a user of bimo can meet: each says what was expected, what came, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BimoError(Exception):
    """A failure whose cause lies outside bimo's code; the command line shows it as one paragraph, exit code 1.

    Args:
        problem: what went wrong, a full sentence.
        expected: what would have been right, a phrase that completes "Expected ...".
        got: what was found instead, a phrase that completes "got ...".
        fix: the next step for the user, a full sentence.
    """

    exit_code = 1

    def __init__(self, problem: str, *, expected: str = "", got: str = "", fix: str = "") -> None:
        self.problem, self.expected, self.got, self.fix = problem, expected, got, fix
        contrast = "; ".join(part for part in (expected and f"expected {expected}", got and f"got {got}") if part)
        sentence = contrast[:1].upper() + contrast[1:] + "." if contrast else ""
        super().__init__(" ".join(part for part in (problem, sentence, fix) if part))


class UsageError(BimoError):
    """The command, an option or an argument is wrong; exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value is unknown, of the wrong type, or impossible in combination."""


class DataError(BimoError):
    """Text, shards or a corpus are missing, unreadable, too small, corrupted, or not what the header says."""


class TokenizerError(BimoError):
    """A tokenizer file is missing, corrupted, or cannot do what was asked."""


class ModelError(BimoError):
    """A model folder is missing, corrupted, or of a family or feature that bimo does not support."""


class RunError(BimoError):
    """A run directory exists already, is not a run, or does not fit what should continue it."""


class TrainingError(BimoError):
    """Training cannot start or go on (budget too short, NaN or Inf loss, nothing to learn from)."""


class EngineError(BimoError):
    """The engine cannot take or finish a request (it is closed, or what computes failed)."""


class ConstraintError(EngineError):
    """What the new tokens must obey is wrong, or cannot be obeyed to the end."""


class Busy(EngineError):
    """The engine has as many requests waiting as it may; the same request can be sent again later."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'?"`` for the nearest of ``known``, or the list of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
