"""From the tokens of one choice to text that can be sent: whole characters and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from bimo.generate.stream import TextStream
from bimo.serve.engines import Token
from bimo.serve.guard import Answer
from bimo.tokenizer.tokenizer import Tokenizer


class Entry(NamedTuple):
    """A token whose text has been sent.

    Attributes:
        offset: characters of the choice's text before it; of a part of a character, those before this character.
    """

    token: Token
    offset: int


class Piece(NamedTuple):
    """What one more token makes certain.

    Attributes:
        text: to be sent, often empty.
        entries: the tokens that ``text`` completes.
        finish_reason: of the last piece "stop", "length" or "content_filter", else None.
        cached: tokens of the prompt that were known from earlier requests.
    """

    text: str
    entries: tuple[Entry, ...]
    finish_reason: str | None
    cached: int = 0


class Writer:
    """One choice being written."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._silent = frozenset(tokenizer.special.values())
        self._stream = TextStream(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoded = self._sent = 0  # characters
        self._pending: list[Entry] = []

    def add(self, token: Token) -> Piece:
        """Take the next token."""
        data = b"" if token.id in self._silent else self._tokenizer.token_bytes(token.id)
        self._pending.append(Entry(token, self._decoded))
        self._decoded += len(self._decoder.decode(data))
        text = self._stream.add(data)
        if token.finish_reason is not None:
            text += self._stream.end()
        self._sent += len(text)
        finish_reason = "stop" if self._stream.stopped else token.finish_reason
        everything = finish_reason is not None and not self._stream.stopped
        ready = tuple(entry for entry in self._pending if everything or entry.offset < self._sent)
        self._pending = self._pending[len(ready) :]
        return Piece(text, ready, finish_reason, token.cached)


class GuardedWriter:
    """The same behind a guard: text waits until it is judged; tokens behind anything replaced are not told."""

    def __init__(self, writer: Writer, answer: Answer) -> None:
        self._writer, self._answer = writer, answer
        self._waiting: tuple[Entry, ...] = ()

    def add(self, token: Token) -> Piece:
        """Take the next token."""
        piece = self._writer.add(token)
        text = self._answer.add(piece.text)
        if piece.finish_reason is not None:
            text += self._answer.end()
        if self._answer.stopped is not None:
            return Piece(text, (), "content_filter", piece.cached)
        waiting = (*self._waiting, *piece.entries)
        whole = piece.finish_reason is not None
        ready = tuple(entry for entry in waiting if whole or entry.offset < self._answer.judged)
        self._waiting = waiting[len(ready) :]
        return Piece(text, () if self._answer.redacted else ready, piece.finish_reason, piece.cached)
