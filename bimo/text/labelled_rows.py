"""Rows of a labelled set, and the side of the split that each is on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

TEST_SHARE = 0.15  # of sets that come without a split

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]  # the split and the row


def split_of(text: str) -> str:
    """The split of a row whose set has none, by its text alone: equal rows are on one side, whatever stands beside."""
    share = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
    return "test" if share < TEST_SHARE else "train"


def once(rows: Rows, key: Callable[[Row], Any]) -> Rows:
    """The rows without those whose key came before."""
    seen = set()
    for split, row in rows:
        if (name := key(row)) not in seen:
            seen.add(name)
            yield split, row
