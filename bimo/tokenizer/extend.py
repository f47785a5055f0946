"""A byte-level BPE tokenizer with further tokens, learned from new text; every old id keeps its meaning.

New merges come after the old ones, so a text is first cut as before and then joined further. The tokens that shorten
the text most are found by training BPE on the old tokenizer's output, in which each old token is one character.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bimo.errors import TokenizerError
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import learn_merges

SAMPLE_BYTES = 4_000_000  # of text that new tokens are learned from
LONGEST = 100  # old tokens of one word: learning takes time quadratic in it
SPARE = 64  # further merges learned, as two of them can spell the same token
_FIRST = 0x10000  # characters that stand for old tokens: beyond surrogates, a million of them
_BREAK = "\n"


def extend_tokenizer(tokenizer: Tokenizer, texts: Iterable[str], count: int) -> Tokenizer:
    """Add up to ``count`` tokens, those which shorten ``texts`` most; fewer where no further pair occurs twice.

    The new ids follow the largest old one, control tokens included.

    Raises:
        TokenizerError: the tokenizer is not a byte-level BPE.
    """
    definition = json.loads(tokenizer.definition)
    model = definition["model"]
    if model.get("type") != "BPE" or "ByteLevel" not in json.dumps(definition.get("decoder")):
        fix = "Train without tokenizer.extend: texts of any language can be written with the tokens there are."
        raise TokenizerError("Only a byte-level BPE tokenizer can be extended.", got=str(model.get("type")), fix=fix)
    piece_of = {id: piece for piece, id in model["vocab"].items()}
    control = {token["content"]: token["id"] for token in definition["added_tokens"]}
    taken = {**control, **model["vocab"]}
    old = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    merges, known, added = list(old), set(old), 0
    spelled = {chr(_FIRST + id): piece for id, piece in piece_of.items() if piece not in control}
    for left, right in _learned(tokenizer, texts, count + SPARE):
        if added == count:
            break
        if left not in spelled or right not in spelled:
            continue  # made of a token that was left out
        pair = (spelled[left], spelled[right])
        piece = "".join(pair)
        if piece in control:
            continue
        spelled[left + right] = piece
        if pair not in known:
            known.add(pair)
            merges.append(pair)
        if piece not in taken:
            taken[piece] = tokenizer.vocab_size + added
            added += 1
    # Control tokens stand in the vocabulary too: their ids would be given anew otherwise, after the last piece's.
    model["vocab"] = dict(sorted(taken.items(), key=lambda entry: entry[1]))
    model["merges"] = [list(merge) for merge in merges]
    content = json.dumps(definition, indent=2, ensure_ascii=False).encode("utf-8")
    return Tokenizer(content, tokenizer.config, tokenizer.chat_template, where="The extended tokenizer")


def with_control_tokens(tokenizer: Tokenizer, names: Iterable[str]) -> Tokenizer:
    """The tokenizer with further control tokens, after its largest id; those it has already stay what they are."""
    definition = json.loads(tokenizer.definition)
    new = [name for name in names if name not in tokenizer.special]
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    definition["added_tokens"] += [
        {"id": tokenizer.vocab_size + place, "content": name, **form} for place, name in enumerate(new)
    ]
    content = json.dumps(definition, indent=2, ensure_ascii=False).encode("utf-8")
    return Tokenizer(content, tokenizer.config, tokenizer.chat_template, where="The extended tokenizer")


def _learned(tokenizer: Tokenizer, texts: Iterable[str], count: int) -> Iterator[tuple[str, str]]:
    """Pairs of strings over characters that stand for old tokens, in the order in which BPE joins them."""
    words = _words(tokenizer, texts)
    alphabet = {char for word in words for char in word}
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(_BREAK, behavior="removed")
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + count, min_frequency=2, show_progress=False)
    learn_merges(learner, (_BREAK.join([word] * number) for word, number in sorted(words.items())), trainer)
    yield from json.loads(learner.to_str())["model"]["merges"]


def _words(tokenizer: Tokenizer, texts: Iterable[str]) -> Mapping[str, int]:
    """How often each stretch occurs that merges cannot leave, one character a token."""
    counts: Counter[str] = Counter()
    left = SAMPLE_BYTES
    for text in texts:
        for ids in tokenizer.encode_words(text[:left]):
            word = "".join(chr(_FIRST + id) for id in ids)
            counts.update(word[start : start + LONGEST] for start in range(0, len(word), LONGEST))
        left -= len(text.encode("utf-8", "surrogatepass"))
        if left <= 0:
            break
    return counts


def first_difference(old: Tokenizer, new: Tokenizer) -> str:
    """Why ``new`` is not ``old`` with further tokens, in words; empty if it is."""
    if new.vocab_size < old.vocab_size:
        return f"{new.vocab_size} tokens instead of at least {old.vocab_size}"
    for id in range(old.vocab_size):
        if old.token_bytes(id) != new.token_bytes(id):
            return f"token {id} is {_shown(new, id)} instead of {_shown(old, id)}"
    changed = {name: id for name, id in old.special.items() if new.special.get(name) != id}
    if changed or new.eos_id != old.eos_id:
        return f"other control tokens: {', '.join(changed) or 'another end of text'}"
    return ""


def _shown(tokenizer: Tokenizer, id: int) -> str:
    return repr(tokenizer.token_bytes(id).decode("utf-8", "replace"))


def pieces_of(old: Tokenizer, new: Tokenizer) -> dict[int, list[int]]:
    """For each id that ``new`` adds, the ids in which ``old`` writes the same bytes; control tokens are left out."""
    control: set[Any] = set(new.special.values())
    grown = {id: new.token_bytes(id) for id in range(old.vocab_size, new.vocab_size) if id not in control}
    return {id: pieces for id, piece in grown.items() if (pieces := old.encode_bytes(piece))}
