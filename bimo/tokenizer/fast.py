"""The same ids, several times as fast: byte-level BPE in tiktoken, where a tokenizer's definition is that and no more.

tiktoken merges by the ids of the results, Hugging Face's library by the order of the merges. They agree where every
merge gives a token of its own whose id is larger than that of the merge before, as when the tokenizer was trained; any
other definition is left to its own library. So is text with characters beyond those that have long been in Unicode, of
which the two libraries may not both know whether they are letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tiktoken

PLAIN_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
# Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, punctuation and symbols, Chinese, Japanese, Korean, emoji.
OTHERS = re.compile(
    r"[^\x00-\u0377\u03a3-\u052f\u0591-\u05c7\u05d0-\u05ea\u0600-\u06ff\u0900-\u097f\u0e01-\u0e3a\u0e3f-\u0e5b"
    r"\u1e00-\u1eff\u2000-\u2064\u20a0-\u20bf\u2100-\u218b\u2190-\u2bff\u3000-\u303f\u3041-\u3096\u3099-\u30ff"
    r"\u3105-\u312f\u3400-\u9fef\uac00-\ud7a3\ufe30-\ufe4f\uff01-\uffbe\U0001f300-\U0001f64f]"
)
TOGETHER = 1 << 15  # characters that a thread is given at once, or one text


class Fast:
    """Encodes texts as a definition says."""

    def __init__(self, pattern: str, ranks: Mapping[bytes, int]) -> None:
        self._encoding = tiktoken.Encoding("bimo", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})

    def encode_batch(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        """The ids of each text, none of which :func:`knows` refuses."""
        with ThreadPoolExecutor(threads) as pool:
            return [ids for part in pool.map(self._encode, _together(texts)) for ids in part]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encoding.encode_ordinary(text) for text in texts]


def _together(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, short ones several at a time: handing one over takes as long as encoding a paragraph."""
    first, characters = 0, 0
    for after, text in enumerate(texts, start=1):
        characters += len(text)
        if characters >= TOGETHER or after == len(texts):
            yield texts[first:after]
            first, characters = after, 0


def fast(definition: Mapping[str, Any], piece_bytes: Mapping[str, bytes]) -> Fast | None:
    """The encoder of a ``tokenizer.json``; None where it says anything that tiktoken does not do.

    Args:
        piece_bytes: the bytes that each piece of the vocabulary stands for, added tokens left out.
    """
    model = definition["model"]
    pattern = _pattern(definition)
    if pattern is None or any(model.get(key, value) not in (value, "") for key, value in PLAIN_MODEL.items()):
        return None
    ids = {piece: id for piece, id in model["vocab"].items() if piece in piece_bytes}
    merged = ["".join(pair if isinstance(pair, list) else pair.split(" ")) for pair in model["merges"]]
    order = [ids.get(piece, -1) for piece in merged]
    in_order = all(earlier < later for earlier, later in zip([-1, *order], order, strict=False))
    ranks = {piece_bytes[piece]: id for piece, id in ids.items()}
    whole = len(ranks) == len(ids) == 256 + len(merged) and all(bytes([byte]) in ranks for byte in range(256))
    singles_first = max((ranks.get(bytes([byte]), 0) for byte in range(256)), default=0) < min(order, default=1 << 40)
    return Fast(pattern, ranks) if in_order and whole and singles_first else None


def _pattern(definition: Mapping[str, Any]) -> str | None:
    """The pattern of the words, where they are cut by one and nothing else happens to the text."""
    steps = (definition.get("pre_tokenizer") or {}).get("pretokenizers", [])
    if definition.get("normalizer") is not None or [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, to_bytes = steps
    plain = split["behavior"] == "Isolated" and not split["invert"] and not to_bytes["use_regex"]
    pattern = split["pattern"].get("Regex")
    return pattern if plain and not to_bytes["add_prefix_space"] else None


def knows(text: str) -> bool:
    """Whether all libraries are known to agree on which characters of a text are letters, digits or spaces."""
    return text.isascii() or not OTHERS.search(text)
