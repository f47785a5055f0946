"""The texts of an embedding or classification request as ids."""

from __future__ import annotations

from collections.abc import Sequence

from bimo.serve.errors import wrong
from bimo.serve.served import Served

TOGETHER = 32  # texts of one request that are computed at the same time


def input_ids(served: Served, inputs: Sequence[str | Sequence[int]], *, cut: bool) -> list[Sequence[int]]:
    """The ids of each text; those that are ids already are taken as they are.

    Args:
        cut: leave out the end of what is too long.

    Raises:
        ApiError: 400; one is empty, has an unknown id, or is longer than the context and not to be cut.
    """
    found: list[Sequence[int]] = []
    most = served.engine.facts.context
    for place, text in enumerate(inputs):
        param = f"input[{place}]" if len(inputs) > 1 else "input"
        if text == "":
            raise wrong(f"Invalid value for '{param}': it is empty.", param)
        if isinstance(text, str):
            ids: Sequence[int] = served.cut_ids(text) if cut else served.text_ids(text, param)
        else:
            served.check_ids(text, param)
            ids = text[:most] if cut else text
        if len(ids) > most:
            message = f"This model's maximum context length is {most} tokens. '{param}' has {len(ids)} tokens."
            raise wrong(message, param, "context_length_exceeded")
        if not ids:
            raise wrong(f"Invalid value for '{param}': there is no token in it.", param)
        found.append(ids)
    return found
