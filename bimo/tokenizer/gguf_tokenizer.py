"""The tokenizer inside a GGUF file in Hugging Face's form: byte-level BPE, or SentencePiece BPE with scores."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bimo.errors import TokenizerError, did_you_mean
from bimo.tokenizer.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
LONGEST_PIECE = 512  # characters: finding the merges of a piece takes time quadratic in its length
LONGEST_TEMPLATE = 1 << 20  # characters
SPACE = "\u2581"  # SentencePiece's

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
LINES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Cut(NamedTuple):
    """How a text is cut into words, which merges do not leave.

    Attributes:
        patterns: each cuts the pieces of the one before: what it matches, and what lies between.
        composed: whether the text is brought into Unicode's form NFC first.
        whole_words: whether a word that is a token is that token, without regard to merges.
        adds_bos: whether a text begins with the start token where the file does not say.
    """

    patterns: tuple[str, ...]
    composed: bool = False
    whole_words: bool = False
    adds_bos: bool = False


GPT2 = Cut((GPT2_WORDS,))
DIGITS_APART = Cut((r"\p{N}", GPT2_WORDS))
QWEN2 = Cut((rf"{ENDINGS}|\p{{N}}|{LINES}",), composed=True)
LLAMA3 = Cut((rf"{ENDINGS}|\p{{N}}{{1,3}}|{LINES}",), whole_words=True, adds_bos=True)
# tokenizer.ggml.pre, llama.cpp's names of the ways to cut (src/llama-vocab.cpp).
CUTS = {
    "default": Cut((r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-2": GPT2,
    "phi-2": GPT2,
    "mpt": GPT2,
    "olmo": GPT2,
    "smollm": DIGITS_APART,
    "starcoder": DIGITS_APART,
    "refact": DIGITS_APART,
    "command-r": DIGITS_APART,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
}


def read_tokenizer(metadata: Mapping[str, Any], where: str, size: int) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describe.

    Args:
        where: the file's name, for error messages.
        size: rows of the model's table; no token may have an id beyond it.

    Raises:
        TokenizerError: there is none, it is damaged, or of a kind that is not supported.
    """
    start = "tokenizer.ggml."
    ggml = {key.removeprefix(start): value for key, value in metadata.items() if key.startswith(start)}
    kinds = {"gpt2": _byte_level, "llama": _sentencepiece}
    kind = ggml.get("model")
    if not isinstance(kind, str) or kind not in kinds:
        expected = "tokenizer.ggml.model gpt2 (byte-level BPE) or llama (SentencePiece)"
        raise TokenizerError(f"The tokenizer of {where} is not supported.", expected=expected, got=repr(kind))
    pieces = _Pieces(ggml, where, size)
    definition, adds_bos = kinds[kind](ggml, pieces)
    bos = pieces.named("bos")
    if isinstance(ggml.get("add_bos_token"), bool):
        adds_bos = ggml["add_bos_token"]
    adds_bos = adds_bos and bos is not None
    definition = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": pieces.added(), **definition}
    definition["post_processor"] = _begin_with(bos, pieces.ids[bos]) if adds_bos and bos is not None else None
    if pieces.named("eos") is None:
        expected = "tokenizer.ggml.eos_token_id, the token that ends a text"
        raise TokenizerError(f"The tokenizer of {where} is not usable.", expected=expected, got="none")
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    tasks = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    config |= {key: name for key, task in tasks.items() if (name := pieces.named(task)) is not None}
    config |= {"add_bos_token": adds_bos, "clean_up_tokenization_spaces": False}
    content = json.dumps(definition, ensure_ascii=False).encode("utf-8")
    return Tokenizer(content, config, _template(metadata, where), where=f"The tokenizer of {where}")


def _template(metadata: Mapping[str, Any], where: str) -> str | None:
    template = metadata.get("tokenizer.chat_template")
    if template is None:
        return None
    if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
        expected = f"a text of at most {LONGEST_TEMPLATE:,} characters"
        raise TokenizerError(f"The chat template of {where} is not usable.", expected=expected)
    return template


class _Pieces:
    """The vocabulary: what each id is, and of which type."""

    def __init__(self, ggml: Mapping[str, Any], where: str, size: int) -> None:
        self._ggml, self._where = ggml, where
        texts = self.texts("tokens")
        if not texts or len(texts) > size:
            raise self.wrong(f"1 to {size:,} tokens, as the model has", f"{len(texts):,}")
        types = self.numbers("token_type", len(texts)) if "token_type" in ggml else [NORMAL] * len(texts)
        used = [id for id, kind in enumerate(types) if kind != UNUSED]
        self.types = {id: int(types[id]) for id in used}
        self.ids = {texts[id]: id for id in used}
        self._texts = texts
        if len(self.ids) < len(used):
            twice = Counter(texts[id] for id in used).most_common(1)[0][0]
            raise self.wrong("tokens that differ", f"{twice!r} twice")

    def wrong(self, expected: str, got: str) -> TokenizerError:
        fix = "Convert the model again with a current llama.cpp, or get its original from a model hub."
        return TokenizerError(f"The tokenizer of {self._where} is damaged.", expected=expected, got=got, fix=fix)

    def texts(self, key: str) -> Sequence[str]:
        values = self._ggml.get(key)
        if not isinstance(values, list):
            raise self.wrong(f"tokenizer.ggml.{key}, a list of texts", type(values).__name__)
        return values

    def numbers(self, key: str, count: int) -> Sequence[float]:
        values = self._ggml.get(key)
        if not isinstance(values, np.ndarray) or len(values) != count:
            raise self.wrong(f"tokenizer.ggml.{key}, {count:,} numbers", type(values).__name__)
        return list(values.tolist())

    def named(self, task: str) -> str | None:
        """The token with a task, such as ``eos``; None where there is none."""
        id = self._ggml.get(f"{task}_token_id")
        if id is None:
            return None
        if not isinstance(id, int) or isinstance(id, bool) or id not in self.types:
            raise self.wrong(f"a token of the vocabulary as tokenizer.ggml.{task}_token_id", repr(id))
        return self._texts[id]

    def added(self) -> list[dict[str, Any]]:
        """The tokens that are found in a text before it is cut, as ``tokenizer.json`` lists them."""
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        special = {UNKNOWN: True, CONTROL: True, USER: False}
        return [
            {"id": id, "content": self._texts[id], **plain, "special": special[kind]}
            for id, kind in self.types.items()
            if kind in special and self._texts[id]
        ]


def _begin_with(bos: str, id: int) -> dict[str, Any]:
    """The step of ``tokenizer.json`` that puts the start token before a text."""
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    text, other = ({"Sequence": {"id": one, "type_id": 0}} for one in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, start, other],
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    }


MODEL: dict[str, Any] = {"type": "BPE", "dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}


def _byte_level(ggml: Mapping[str, Any], pieces: _Pieces) -> tuple[dict[str, Any], bool]:
    name = ggml.get("pre", "default")
    if not isinstance(name, str) or name not in CUTS:
        problem = f"The tokenizer cuts text in a way that is not supported: tokenizer.ggml.pre {name!r}."
        raise TokenizerError(problem, fix=did_you_mean(str(name), CUTS))
    cut = CUTS[name]
    merges = []
    for merge in pieces.texts("merges"):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= pieces.ids.keys():
            raise pieces.wrong("merges of two tokens into a third", repr(merge))
        merges.append([left, right])
    words = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False} for one in cut.patterns
    ]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": cut.whole_words}
    return {
        "normalizer": {"type": "NFC"} if cut.composed else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*words, to_bytes]},
        "decoder": {**to_bytes, "add_prefix_space": True, "use_regex": True},
        "model": {**MODEL, **flags, "vocab": pieces.ids, "merges": merges},
    }, cut.adds_bos


def _sentencepiece(ggml: Mapping[str, Any], pieces: _Pieces) -> tuple[dict[str, Any], bool]:
    prefix = bool(ggml.get("add_space_prefix", True))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    first = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    steps = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    unknown = pieces.named("unknown")
    flags = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*first, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {**MODEL, **flags, "vocab": pieces.ids, "merges": _scored_merges(ggml, pieces)},
    }, True


def _scored_merges(ggml: Mapping[str, Any], pieces: _Pieces) -> list[list[str]]:
    """The merges of a SentencePiece BPE, which joins the two neighbours whose whole has the highest score."""
    scores = pieces.numbers("scores", len(pieces.texts("tokens")))
    ids = {text: id for text, id in pieces.ids.items() if pieces.types[id] in (NORMAL, USER)}
    found = []
    for text, id in ids.items():
        if len(text) > LONGEST_PIECE:
            raise pieces.wrong(f"pieces of at most {LONGEST_PIECE} characters", f"one of {len(text):,}")
        if not math.isfinite(scores[id]):
            raise pieces.wrong("scores that are numbers", f"{scores[id]} of {text!r}")
        halves = ((text[:at], text[at:]) for at in range(1, len(text)))
        # Of two ways to the same piece, the order of Hugging Face's own converter.
        found += [
            (-scores[id], -len(left), ids[left], ids[right], left, right)
            for left, right in halves
            if left in ids and right in ids
        ]
    return [list(merge[-2:]) for merge in sorted(found)]
