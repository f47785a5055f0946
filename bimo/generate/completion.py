"""What a generation returns: texts that know how they came about, and how one of them grows token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bimo.generate.generate import Step
from bimo.generate.stream import TextStream

if TYPE_CHECKING:
    from bimo.tokenizer.tokenizer import Tokenizer


class Completion(str):
    """A generated text, without the prompt; it can be used wherever a string can.

    Attributes:
        finish_reason: "stop" after an end token or a stop string, "length" at a limit.
        ids: every token drawn, those of the end included.
        logprobs: natural log-probability of each, as the model gives it before any sampling rule.
        seed: given as ``seed``, repeats this text alone.
    """

    finish_reason: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    seed: int

    def __new__(
        cls, text: str, *, finish_reason: str, ids: Sequence[int], logprobs: Sequence[float], seed: int
    ) -> Completion:
        self = super().__new__(cls, text)
        self.finish_reason, self.ids, self.logprobs, self.seed = finish_reason, tuple(ids), tuple(logprobs), seed
        return self


class Completions(list[Completion]):
    """The texts of one call, in a list that prints as the texts."""

    def __str__(self) -> str:
        return "\n---\n".join(self)


class Row:
    """A completion being written.

    Attributes:
        finish_reason: None until the row has finished.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int, stop: Sequence[str]) -> None:
        self.seed = seed
        self.finish_reason: str | None = None
        self._tokenizer = tokenizer
        self._silent = frozenset(tokenizer.special.values())
        self._stream = TextStream(stop)
        self._pieces: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[float] = []

    def add(self, step: Step) -> str:
        """Take the next token and return the text that is certain now, often empty."""
        self._ids.append(step.token)
        self._logprobs.append(step.logprob)
        piece = self._stream.add(b"" if step.token in self._silent else self._tokenizer.token_bytes(step.token))
        if step.finish_reason is not None:
            piece += self._stream.end()
        self.finish_reason = "stop" if self._stream.stopped else step.finish_reason
        self._pieces.append(piece)
        return piece

    def completion(self) -> Completion:
        """The result, once the row has finished."""
        assert self.finish_reason is not None
        return Completion(
            "".join(self._pieces),
            finish_reason=self.finish_reason,
            ids=self._ids,
            logprobs=self._logprobs,
            seed=self.seed,
        )
