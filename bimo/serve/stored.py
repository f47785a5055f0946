"""Answers that later requests refer to, in memory, as many as there is room for; the oldest go first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from bimo.serve.limits import STORED_CHARACTERS, STORED_RESPONSES


class Stored(NamedTuple):
    """An answer and the conversation that ends with it."""

    body: dict[str, Any]
    messages: list[dict[str, Any]]

    @property
    def characters(self) -> int:
        """About how much memory it takes."""
        return 2_000 + sum(len(message["content"]) for message in self.messages)


class Store:
    """Answers by who asked and their id: nobody finds another's.

    Attributes:
        characters: of all that is stored.
    """

    def __init__(self, most: int = STORED_RESPONSES, characters: int = STORED_CHARACTERS) -> None:
        self._most, self._room = most, characters
        self._kept: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self.characters = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, caller: str, answer: Stored) -> None:
        """Keep an answer, and forget others to make room."""
        self._kept[caller, answer.body["id"]] = answer
        self.characters += answer.characters
        while len(self._kept) > self._most or (self.characters > self._room and self._kept):
            _, old = self._kept.popitem(last=False)
            self.characters -= old.characters

    def find(self, caller: str, id: str) -> Stored | None:
        """The answer, unless it is forgotten or was never there."""
        return self._kept.get((caller, id))

    def remove(self, caller: str, id: str) -> bool:
        """Forget an answer; whether there was one."""
        old = self._kept.pop((caller, id), None)
        self.characters -= old.characters if old else 0
        return old is not None
