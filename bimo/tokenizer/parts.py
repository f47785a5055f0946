"""The ids of a rendered conversation, part by part: what was said before is not encoded anew with every turn."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

KEPT, LONGEST = 4_096, 4_096  # parts that are remembered, the last ones; characters of a part that is


class Parts:
    """Encodes texts with control tokens in them, the text between two of them once.

    A tokenizer splits a text at its control tokens before it does anything else, so that ids do not depend on what
    stands beyond the nearest ones. Where one does otherwise, the whole text is encoded.

    Args:
        encode: what gives the ids of any text.
        control: the control tokens as they stand in texts, and their ids.
    """

    def __init__(self, encode: Callable[[str], list[int]], control: Mapping[str, int]) -> None:
        self._encode, self._control = encode, control
        self._names = re.compile(f"({'|'.join(map(re.escape, control))})")
        self._known = functools.lru_cache(maxsize=KEPT)(self._between)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``."""
        if not self._control:
            return self._encode(text)
        pieces = ["", *self._names.split(text), ""]  # none, text, control token, text, ..., text, none
        ids: list[int] = []
        for number in range(1, len(pieces), 2):
            before, piece, after = pieces[number - 1 : number + 2]
            between = self._known if len(piece) <= LONGEST else self._between
            found = between(before, piece, after)
            if found is None:
                return self._encode(text)
            ids += found
            if after:
                ids.append(self._control[after])
        return ids

    def _between(self, before: str, piece: str, after: str) -> list[int] | None:
        """The ids of a text between two control tokens, or none; None where they are not kept apart from it."""
        first, last = ([self._control[name]] if name else [] for name in (before, after))
        ids = self._encode(before + piece + after)
        inside = ids[len(first) : len(ids) - len(last)]
        return inside if [*first, *inside, *last] == ids else None
