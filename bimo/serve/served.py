"""What all routes share: the models that are served, their engines, and the counters."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimo.batches.texts import encoded
from bimo.generate.conventions import Conventions
from bimo.serve.admission import Admission
from bimo.serve.engines import Engine, Purpose, not_for
from bimo.serve.errors import ApiError
from bimo.serve.guard import Guard, Stopped
from bimo.serve.keys import Keys
from bimo.serve.limits import Limits
from bimo.serve.metrics import Metrics
from bimo.serve.quotas import Quotas
from bimo.tokenizer.tokenizer import Tokenizer


@dataclass
class Shared:
    """What all models of a server have in common: who may do how much, and the counters.

    Attributes:
        guard: what looks at questions and answers, if anything does.
    """

    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=lambda: Keys({}))
    guard: Guard | None = None

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits)
        self.quotas = Quotas(self.limits)
        self.metrics = Metrics()


@dataclass
class Served:
    """One model of a server.

    Attributes:
        name: under which clients ask for the model.
        created: when its weights were written, in Unix seconds.
        report: the run's report card, where there is one.
    """

    name: str
    created: int
    engine: Engine
    tokenizer: Tokenizer
    conventions: Conventions
    shared: Shared
    report: Path | None = None

    def guarded(self, text: str, caller: str, param: str) -> str:
        """A text as the model may see it.

        Raises:
            ApiError: 400; the guard refuses it.
        """
        guard = self.shared.guard
        if guard is None:
            return text
        found = guard.question(text, caller)
        if isinstance(found, Stopped):
            raise ApiError(400, guard.config.refusal, param=param, code="content_filter")
        return found

    def guarded_messages(self, messages: Sequence[dict[str, Any]], caller: str, param: str) -> list[dict[str, Any]]:
        """The messages of a conversation with what users and tools say in it as the model may see it.

        Raises:
            ApiError: 400; the guard refuses one.
        """
        return [
            {**message, "content": self.guarded(message["content"], caller, param)}
            if message["role"] in ("user", "tool")
            else message
            for message in messages
        ]

    def whole_text_ids(self, text: str) -> list[int]:
        """The ids of a text as the model expects them, its start included."""
        ids = self.tokenizer.encode(text)
        return [*(self.conventions.prefix if ids else self.conventions.start), *ids]

    def cut_ids(self, text: str) -> list[int]:
        """The same without the end of the text, if it does not fit the context."""
        return self.whole_text_ids(text)[: self.engine.facts.context]

    def text_ids(self, text: str, param: str) -> list[int]:
        """The same, of a text that may fit the context.

        Raises:
            ApiError: 400, as :meth:`require_short`.
        """
        self.require_short(len(text), param)
        return self.whole_text_ids(text)

    def require_short(self, characters: int, param: str) -> None:
        """Check before a text is encoded that it is not hopelessly long.

        Raises:
            ApiError: 400; even with the longest tokens it would not fit the context.
        """
        if self.least_tokens(characters) > (context := self.engine.facts.context):
            message = (
                f"This model's maximum context length is {context} tokens. However, '{param}' has at least "
                f"{self.least_tokens(characters)} tokens. Please reduce its length."
            )
            raise ApiError(400, message, param=param, code="context_length_exceeded")

    def least_tokens(self, characters: int) -> int:
        """How many tokens a text has at least."""
        return characters // self._longest

    @functools.cached_property
    def _longest(self) -> int:
        """Characters of the longest token; of no text are there more in one."""
        return max(1, *(len(self.tokenizer.token_bytes(id)) for id in range(self.tokenizer.vocab_size)))

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Check that all ``ids`` are tokens of the model.

        Raises:
            ApiError: 400.
        """
        known = min(self.engine.facts.vocab_size, self.tokenizer.vocab_size)
        for place, id in enumerate(ids):
            if not 0 <= id < known:
                message = f"Invalid value for '{param}': token {id} at place {place} is not one of 0 to {known - 1}."
                raise ApiError(400, message, param=param, code="invalid_value")

    def room(self, prompt: int, wanted: int | None, param: str, max_param: str) -> int:
        """How many tokens may be drawn behind a prompt of ``prompt`` tokens; all that fit if ``wanted`` is None.

        Raises:
            ApiError: 400; both together are longer than the model's context.
        """
        context = self.engine.facts.context
        left = context - prompt
        if left < (1 if wanted is None else wanted):
            asked = f" and {wanted} in the completion" if wanted is not None else ""
            total = prompt + (wanted or 0)
            message = (
                f"This model's maximum context length is {context} tokens. However, you requested {total} tokens "
                f"({prompt} in the prompt{asked}). Please reduce the length of the prompt or {max_param}."
            )
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return left if wanted is None else wanted


class ServedTexts(Served):
    """A model that reads whole texts: ids stand on both sides of each."""

    def whole_text_ids(self, text: str) -> list[int]:
        before, after = self.tokenizer.around
        return [*before, *self.tokenizer.encode(text), *after]

    def cut_ids(self, text: str) -> list[int]:
        (ids,) = encoded(self.tokenizer, [text], self.engine.facts.context)
        return ids

    def require_short(self, characters: int, param: str) -> None:
        """Nothing can be said before: an unknown word of any length is one token."""


class Models:
    """All models of a server, at least one, in the order in which they are listed.

    Attributes:
        shared: what they have in common.
    """

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = {served.name: served for served in models}
        assert len(self._models) == len(models) > 0, "names are unique"
        self.shared = models[0].shared

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models.values())

    def find(self, name: str | None, *purposes: Purpose) -> Served:
        """The model of a name; where none is named, the first that is for one of ``purposes``.

        Args:
            purposes: what it may be for; "text" if none is given.

        Raises:
            ApiError: 404, or 400 where it is for something else.
        """
        asked = list(self) if name is None else [self.any(name)]
        for served in asked:
            if served.engine.facts.purpose in (purposes or ("text",)):
                return served
        raise not_for(asked[0].engine.facts)

    def any(self, name: str) -> Served:
        """The model of a name, whatever it is for.

        Raises:
            ApiError: 404.
        """
        if name not in self._models:
            known = ", ".join(f"'{one}'" for one in self._models)
            message = f"The model '{name}' does not exist. This server has {known}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._models[name]


def now() -> int:
    """Unix seconds."""
    return int(time.time())
