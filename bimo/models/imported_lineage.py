"""What a run's lineage says of a model that was not trained here: where it came from, and nothing of its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bimo import __version__
from bimo.models import count_parameters
from bimo.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bimo.models import AnyModel


def imported_lineage(
    model: AnyModel,
    tokenizer: Tokenizer,
    dtype: str,
    source: Mapping[str, Any],
    *,
    parent: Mapping[str, Any] | None = None,
    events: Sequence[str] = (),
) -> dict[str, Any]:
    """The lineage of a model that was imported or merged.

    Args:
        dtype: precision of the weights that are written.
        source: the file, its hash and format, and what it says of itself.
        parent: the run or folder that the model goes on from.
        events: what else to know.
    """
    total, inner = count_parameters(model)
    return {
        "kind": "imported",
        "status": "finished",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "parent": parent,
        "source": {**source},
        # Of the text that it was trained on nothing is known; a run that goes on from here asks for these.
        "data": {"source": "", "licence": source.get("licence", ""), "data_hash": None},
        "tokenizer": {"hash": tokenizer.hash, "vocab_size": tokenizer.vocab_size},
        "model": {"parameters": total, "non_embedding_parameters": inner, "dtype": dtype},
        "versions": {"bimo": __version__},
        "events": [*events],
    }
