"""What a program asks the engine for, and what it hears of it: ids in, events out.

Shape legend: V vocabulary, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bimo.errors import BimoError
from bimo.generate.sampling import Sampling

MOST_ALTERNATIVES = 20  # log-probabilities a position, as in OpenAI's chat API

# "stop" after an end token or a complete constraint, "length" at a limit, "done" where nothing was to be drawn.
Reason: TypeAlias = Literal["stop", "length", "done", "cancelled", "error"]


class Matcher(Protocol):
    """What one sequence of new tokens may go on with, given the tokens so far.

    Attributes:
        finished: nothing can follow any more, an end token neither; the request then ends.
    """

    finished: bool

    def allowed(self) -> NDArray[np.bool_]:
        """The tokens that may come next, (V,); a shorter mask forbids the ids behind its end.

        Raises:
            BimoError: the limits of the constraint are used up; the request ends with this error.
        """

    def advance(self, token: int) -> None:
        """Take the next token, one of those allowed."""

    def forced(self) -> Sequence[int]:
        """Tokens that are likely to come next because there is little choice: guesses, which the engine verifies."""


class Constraint(Protocol):
    """A rule that the new tokens obey, compiled once for any number of requests."""

    def start(self) -> Matcher:
        """The state before the first new token."""


@dataclass(frozen=True)
class Request:
    """One sequence of ids and what is wanted of it: its continuation, its scores, or its embedding.

    Attributes:
        prompt: ids, at least one.
        sampling: how new tokens are drawn, at most ``max_new_tokens``; None draws none. ``stop`` and ``seed`` are not
            read here: texts are the caller's business, and the seed is the next field.
        seed: of the draws. The draw of the i-th new token depends on it and i alone.
        eos_ids: tokens that end the sequence; such a token is the last one.
        logprobs: alternatives of each new token whose log-probabilities are wanted; None = not even its own.
        prompt_logprobs: the same for the tokens of the prompt, its first one excepted.
        constraint: what the new tokens must obey; an end token is allowed where the constraint allows it.
        embed: give the hidden states after the last norm, as their mean or the last one.
        priority: among waiting requests the highest starts first, then the earliest.
        salt: only requests of the same salt share the keys and values of equal beginnings, which time would tell.
    """

    prompt: Sequence[int]
    sampling: Sampling | None = field(default_factory=Sampling)
    seed: int = 0
    eos_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    constraint: Constraint | None = None
    embed: Literal["mean", "last"] | None = None
    priority: int = 0
    salt: bytes = b""


@dataclass(frozen=True)
class Score:
    """How likely the model finds a token, before any sampling rule.

    Attributes:
        logprob: natural log-probability.
        rank: 1 for the likeliest token.
        top: ids and log-probabilities of the likeliest tokens, as many as were asked for, likeliest first.
    """

    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Prompt:
    """The prompt is computed; the first event of a request that does not fail or end before.

    Attributes:
        cached: how many of its positions were found computed.
        scores: of its tokens but the first, where ``prompt_logprobs`` asked for them.
        embedding: float32 (C,), where ``embed`` asked for it.
    """

    cached: int
    scores: tuple[Score, ...] | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Token:
    """The next new token.

    Attributes:
        score: as the model gives it, where ``logprobs`` asked for it.
        sampled_logprob: after all rules, of the draw itself: 0 where there was no choice; None as ``score``.
        finish_reason: of the last token "stop" or "length", else None.
    """

    id: int
    score: Score | None = None
    sampled_logprob: float | None = None
    finish_reason: Reason | None = None


@dataclass(frozen=True)
class End:
    """Always the last event, and always one.

    Attributes:
        error: why the request failed, where the reason is "error".
    """

    reason: Reason
    error: BimoError | None = None


Event: TypeAlias = Prompt | Token | End
