"""The rows of a person's own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One record.

    Attributes:
        number: from 0, over all files.
        where: what to call it, as its owner counts: ``reviews.csv row 7``.
        values: by column.
    """

    number: int
    where: str
    values: Mapping[str, Any]
