"""How the texts of a model begin and end, and whether it can hold a conversation, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimo import files
from bimo.errors import ModelError
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer

CHAT_END = "<|im_end|>"  # ends a turn in ChatML, which not every folder lists among its end tokens


@dataclass(frozen=True)
class Conventions:
    """What a model expects around the ids of a text.

    Attributes:
        prefix: the ids to put before every prompt; none for some families.
        start: the ids that begin a document, also where ``prefix`` is empty.
        ends: ids that end a text.
        turn_ends: ids that end a reply in a conversation.
        no_chat: why the model cannot hold a conversation, or None if it can.
    """

    prefix: tuple[int, ...]
    start: tuple[int, ...]
    ends: frozenset[int]
    turn_ends: frozenset[int]
    no_chat: str | None


def read_conventions(folder: Path, tokenizer: Tokenizer) -> Conventions:
    """Read the conventions of a run that bimo trained, whose documents start with the end token, or of another model.

    Raises:
        BimoError: a file of the folder is corrupted.
    """
    run = Run(folder)
    lineage = run.read_lineage() if run.lineage.is_file() else {}
    no_chat = None if tokenizer.chat_template is not None else "its tokenizer has no chat template"
    if lineage.get("kind") == "base":
        no_chat = "it is a base model, which continues texts and has not learnt to answer"
    if inherited := lineage.get("texts_begin"):  # tuning changes nothing of how the texts of its model begin
        prefix, start = tuple(inherited["prefix"]), tuple(inherited["start"])
    elif lineage and not run.imported:
        prefix = start = (tokenizer.eos_id,)
    else:
        start = (tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id,)
        prefix = start if tokenizer.adds_bos else ()
    ends = _end_ids(folder) | {tokenizer.eos_id}
    turn_ends = ends | {id for name, id in tokenizer.special.items() if name == CHAT_END}
    return Conventions(prefix, start, ends, turn_ends, no_chat)


def _end_ids(folder: Path) -> frozenset[int]:
    """The end tokens of ``generation_config.json``, else of ``config.json``, where there is one or a list."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        ids: Any = files.read_json(path, error=ModelError).get("eos_token_id") if path.is_file() else None
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()
