"""How single tokens are written in answers: some are parts of characters, some are no text at all."""

from __future__ import annotations

from typing import Any

from bimo.serve.writing import Entry
from bimo.tokenizer.tokenizer import Tokenizer


def legacy_name(tokenizer: Tokenizer, id: int) -> str:
    r"""A token as the completions API writes it: ``bytes:\xe5\xa5`` where it is a part of a character."""
    data = tokenizer.token_bytes(id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + _escaped(data)


def legacy_logprobs(tokenizer: Tokenizer, entries: list[Entry], top: int) -> dict[str, Any]:
    """The ``logprobs`` object of a completion; ``top_logprobs`` names the drawn token too, as OpenAI does."""
    alternatives: list[dict[str, float] | None] = []
    for token, _ in entries:
        if token.logprob is None or top == 0:
            alternatives.append(None)
            continue
        known: dict[str, float] = {}
        for id, logprob in (*token.top[:top], (token.id, token.logprob)):
            known.setdefault(legacy_name(tokenizer, id), finite(logprob))
        alternatives.append(known)
    return {
        "tokens": [legacy_name(tokenizer, entry.token.id) for entry in entries],
        "token_logprobs": [None if token.logprob is None else finite(token.logprob) for token, _ in entries],
        "top_logprobs": alternatives if top else None,
        "text_offset": [entry.offset for entry in entries],
    }


def chat_logprobs(tokenizer: Tokenizer, entries: list[Entry], top: int) -> dict[str, Any]:
    """The ``logprobs`` object of a chat choice; tokens without text, such as the end of a turn, are not listed."""
    silent = frozenset(tokenizer.special.values())
    content = []
    for token, _ in entries:
        if token.id in silent or token.logprob is None:
            continue
        rivals = [_described(tokenizer, id, logprob) for id, logprob in token.top[:top]]
        content.append({**_described(tokenizer, token.id, token.logprob), "top_logprobs": rivals})
    return {"content": content, "refusal": None}


def _described(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(id)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = _escaped(data)
    return {"token": text, "logprob": finite(logprob), "bytes": list(data)}


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold; OpenAI writes this number for what is impossible."""
    return max(logprob, -9999.0)
