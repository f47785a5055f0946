"""The pages of keys and values: who holds them, and which beginnings they keep for a request that begins alike."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from bimo.generate.backend import PAGE


def page_keys(tokens: Sequence[int], *, salt: bytes = b"", known: Sequence[bytes] = ()) -> list[bytes]:
    """A name for each full page of ``tokens`` that stands for all tokens up to its end.

    Cryptographic, because two beginnings of one name would read each other's text.

    Args:
        salt: names of different salts never agree.
        known: the names of the first pages, to be continued.
    """
    keys = list(known)
    for start in range(len(keys) * PAGE, len(tokens) // PAGE * PAGE, PAGE):
        before = keys[-1] if keys else hashlib.blake2b(salt, digest_size=16).digest()
        content = np.asarray(tokens[start : start + PAGE], np.int32).tobytes()
        keys.append(hashlib.blake2b(before + content, digest_size=16).digest())
    return keys


class Pages:
    """Hands out pages by number. A page that nobody holds but that has a name is kept until its room is needed.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._holders = [0] * count
        self._free = list(reversed(range(count)))
        self._named: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # named and held by none, the longest unused first

    @property
    def available(self) -> int:
        """How many can be taken now."""
        return len(self._free) + len(self._idle)

    @property
    def cached(self) -> int:
        """How many of those are kept for a request that begins alike."""
        return len(self._idle)

    def take(self) -> int:
        """A page for one holder, its content undefined; one must be available."""
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            del self._named[self._names.pop(page)]
        self._holders[page] = 1
        return page

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The pages that hold the longest known beginning, held once more now."""
        found = []
        for key in keys:
            page = self._named.get(key)
            if page is None:
                break
            self._holders[page] += 1
            self._idle.pop(page, None)
            found.append(page)
        return found

    def name(self, page: int, key: bytes) -> None:
        """Let others find a page that is full and written to no more; the first page of a name keeps it."""
        if key not in self._named and page not in self._names:
            self._named[key], self._names[page] = page, key

    def hold(self, pages: Sequence[int]) -> None:
        """Hold pages that someone holds already once more."""
        for page in pages:
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Hold these pages, a sequence's from its beginning on, no more; what is behind goes before what it needs."""
        for page in reversed(pages):
            self._holders[page] -= 1
            assert self._holders[page] >= 0, f"page {page} was released by someone who does not hold it"
            if self._holders[page] == 0 and page in self._names:
                self._idle[page] = None
            elif self._holders[page] == 0:
                self._free.append(page)
