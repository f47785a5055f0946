"""A request under way: its tokens so far, the pages it holds, and what the next logits mean for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bimo.errors import ConstraintError
from bimo.generate.backend import PAGE
from bimo.generate.pages import page_keys
from bimo.generate.request import Matcher, Prompt, Reason, Request, Score, Token
from bimo.generate.sampling import History, Row, Uniforms, largest, next_token, normaliser


def score(logits: Row, token: int, alternatives: int) -> Score:
    """How likely ``token`` is by ``logits`` (V,), and the likeliest tokens."""
    above = normaliser(logits)
    top = largest(logits, alternatives).tolist() if alternatives else []
    return Score(
        logprob=float(logits[token]) - above,
        rank=int(np.count_nonzero(logits > logits[token])) + 1,
        top=tuple((id, float(logits[id]) - above) for id in top),
    )


@dataclass(eq=False)
class Job:
    """The state of one request; only the engine's thread changes it once it runs.

    Attributes:
        number: of its arrival.
        limit: positions it may have at most.
        tokens: ids of the prompt and the new ones.
        computed: how many of them have keys and values in ``pages``.
        pages: those it holds, in order.
        named: how many of its pages others can find.
        started: whether its prompt has been computed and told.
        cached: positions of the prompt found computed at the first start.
    """

    request: Request
    number: int
    limit: int
    matcher: Matcher | None = None
    tokens: list[int] = field(init=False)
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    named: int = 0
    started: bool = False
    cached: int | None = None

    def __post_init__(self) -> None:
        request = self.request
        self.tokens = [int(id) for id in request.prompt]
        self.uniforms = Uniforms(request.seed)
        looks_back = request.sampling is not None and request.sampling.looks_back
        self._history = History(request.prompt) if looks_back else None
        self._keys: list[bytes] = []
        self._scores: list[Score] = []
        self._states: list[NDArray[np.float32]] = []

    @property
    def decoding(self) -> bool:
        """Whether only its last token is to be computed."""
        return self.started and self.computed == len(self.tokens) - 1

    def keys(self) -> list[bytes]:
        """The names of its full pages."""
        self._keys = page_keys(self.tokens, salt=self.request.salt, known=self._keys)
        return self._keys

    def start_from(self, pages: list[int]) -> None:
        """Hold these pages, full ones that were found, and compute what is behind them."""
        self.pages, self.named, self.computed = pages, len(pages), len(pages) * PAGE
        if self.cached is None:
            self.cached = self.computed

    def reusable(self) -> int:
        """How many of its first pages need not be computed if others have: none whose logits or states it needs."""
        return self._first_wanted() // PAGE

    def wanted(self, start: int, end: int) -> range:
        """The positions from ``start`` up to ``end`` whose logits, or states, it needs."""
        return range(max(start, self._first_wanted()), end)

    def _first_wanted(self) -> int:
        length = len(self.request.prompt)
        if self.request.prompt_logprobs is not None and len(self._scores) < length - 1:
            return len(self._scores)
        if self.request.embed == "mean":
            return len(self._states)
        return len(self.tokens) - 1

    def take_states(self, states: NDArray[np.float32]) -> Prompt | None:
        """Take the next wanted hidden states (R, C); returns what there is to tell once they are all there."""
        self._states += list(states)
        if self.computed < len(self.tokens):
            return None
        self.started = True
        # Summed in one go: how the prompt was cut into steps must not change the rounding.
        embedding = np.stack(self._states).mean(axis=0, dtype=np.float64).astype(np.float32)
        return Prompt(self.cached or 0, embedding=embedding)

    def take_scores(self, logits: NDArray[np.float32], start: int) -> int:
        """Score the prompt's tokens behind the positions from ``start`` on, (R, V); returns how many rows that took."""
        asked, prompt = self.request.prompt_logprobs, self.request.prompt
        if asked is None:
            return 0
        rows = max(0, min(len(logits), len(prompt) - 1 - start))
        self._scores += [score(logits[row], prompt[start + row + 1], asked) for row in range(rows)]
        return rows

    def prompt_event(self) -> Prompt:
        """What there is to tell once the prompt is computed."""
        self.started = True
        return Prompt(self.cached or 0, None if self.request.prompt_logprobs is None else tuple(self._scores))

    def draw(self, logits: Row) -> Token:
        """Choose the next token by the logits (V,) of the last position, and append it.

        Raises:
            BimoError: the logits are not numbers, or the constraint has failed.
        """
        request, sampling = self.request, self.request.sampling
        assert sampling is not None
        drawn = len(self.tokens) - len(request.prompt)
        allowed = None if self.matcher is None else self._allowed(self.matcher, len(logits))
        token, logprob = next_token(
            logits,
            sampling,
            history=self._history,
            uniform=0.0 if sampling.greedy else self.uniforms[drawn],
            allowed=allowed,
            bonus=None if request.watermark is None else request.watermark.bonus(self.tokens, len(logits)),
        )
        self.tokens.append(token)
        if self._history is not None:
            self._history.add(token)
        if request.logprobs is None:
            return Token(token, finish_reason=self._reason(token))
        return Token(token, score(logits, token, request.logprobs), logprob, self._reason(token))

    def _reason(self, token: int) -> Reason | None:
        if token in self.request.eos_ids:
            return "stop"
        if self.matcher is not None:
            self.matcher.advance(token)
            if self.matcher.finished:
                return "stop"
        return "length" if len(self.tokens) == self.limit else None

    @staticmethod
    def _allowed(matcher: Matcher, size: int) -> NDArray[np.bool_]:
        mask = matcher.allowed()
        allowed = np.zeros(size, np.bool_)
        allowed[: len(mask)] = mask[:size]
        if not allowed.any():
            fix = "Check that the tokenizer can write what it asks."
            raise ConstraintError("The constraint allows no token.", fix=fix)
        return allowed

    def guesses(self, drafted: Sequence[int]) -> list[int]:
        """Tokens to compute along with the last one: what the constraint forces, else those ``drafted``."""
        forced = self.matcher.forced() if self.matcher is not None else ()
        return list(forced or drafted)[: max(0, self.limit - len(self.tokens) - 1)]
