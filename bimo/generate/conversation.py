"""A conversation that remembers what was said, as far as the model's context reaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bimo.generate.language_model import LanguageModel, Message
from bimo.generate.sampling import Sampling


class Conversation:
    """The history of one chat.

    Attributes:
        messages: everything the model is shown again, the system message first if there is one.
        dropped: how many of the oldest messages were left out so far, for want of room.

    Raises:
        RunError: the model cannot hold a conversation.
    """

    def __init__(self, model: LanguageModel, system: str | None = None) -> None:
        model.require_chat()
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self.dropped = 0
        self._model = model
        self._kept = len(self.messages)  # the system message stays

    def say(self, text: str, **options: Any) -> Iterator[str]:
        """Send ``text`` and stream the reply; both join the history when the reply ends or is broken off.

        Args:
            options: as for :meth:`LanguageModel.stream_chat`.

        Raises:
            UsageError: an option is wrong, or ``text`` alone is too long; the history stays as it was.
        """
        question = {"role": "user", "content": text}
        shown = self._fitting(question, options.get("max_new_tokens") or Sampling().max_new_tokens)
        pieces = self._model.stream_chat([*shown, question], **options)
        return self._reply(pieces, shown, question)

    def _reply(self, pieces: Iterator[str], shown: list[Message], question: Message) -> Iterator[str]:
        reply: list[str] = []
        try:
            for piece in pieces:
                reply.append(piece)
                yield piece
        finally:
            self.dropped += len(self.messages) - len(shown)
            self.messages = [*shown, question, {"role": "assistant", "content": "".join(reply)}]

    def _fitting(self, question: Message, max_new_tokens: int) -> list[Message]:
        """The history without as many of the oldest exchanges as the reply needs room for."""
        context = self._model.model.config.max_position_embeddings
        room = context - min(max_new_tokens, context // 2)
        shown = list(self.messages)
        while len(shown) > self._kept and len(self._model.chat_ids([*shown, question])) > room:
            del shown[self._kept : self._kept + 2]
        return shown
