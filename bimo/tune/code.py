"""Code: files are continued, and filled in the middle, so that an editor can ask for what belongs at the cursor.

A file is cut at two places; what is between them is asked for after what stands before and behind it (Bavarian et al.
2022, Efficient training of language models to fill in the middle, §3), in the order prefix, suffix, middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bimo.config import setting
from bimo.device import seed_for
from bimo.errors import ConfigError
from bimo.tokenizer.extend import with_control_tokens
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.origin import opened, resized
from bimo.tune.examples import Example, example
from bimo.tune.language import Packed, ending_at
from bimo.tune.rows import Row
from bimo.tune.task import Refused, Role

if TYPE_CHECKING:
    from bimo.models import Model

ROLES = (Role("text", ("text", "content", "code", "source")), Role("path", ("path", "filename", "file"), False))
# The names that StarCoder, SmolLM and Qwen's coders know.
KNOWN = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
)


@dataclass(frozen=True)
class Code(Packed):
    """Learn to continue source files, and to fill in the middle of them."""

    fill: float = setting(0.5, "share of the pieces that are learned as a middle to fill in; the others are continued")

    def __post_init__(self) -> None:
        if not 0 <= self.fill <= 1:
            raise ConfigError("task code: fill is wrong.", expected="a share from 0 to 1", got=str(self.fill))

    @property
    def name(self) -> str:
        return "code"

    @property
    def documents(self) -> bool:
        """Its rows are files of any kind of text."""
        return True

    @property
    def roles(self) -> Sequence[Role]:
        return ROLES

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        text = row.values.get("text")
        if not isinstance(text, str) or not text.strip():
            return Refused("an empty file")
        return text, ""

    def open(self, folder: Path, device: torch.device, *, seed: int = 0) -> tuple[Model, Tokenizer]:
        origin = opened(folder)
        model, tokenizer = origin.model, origin.tokenizer
        if _names(tokenizer) is None:
            tokenizer = with_control_tokens(tokenizer, KNOWN[0])
            as_end = {tokenizer.special[name]: [origin.tokenizer.eos_id] for name in KNOWN[0]}
            model = resized(model, origin.tokenizer, tokenizer, model.config.max_position_embeddings, as_end)
        return ending_at(model, tokenizer.eos_id).to(device), tokenizer

    def ends(self, tokenizer: Tokenizer) -> frozenset[int]:
        return frozenset({tokenizer.eos_id})

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        found = self.texts(row)
        if isinstance(found, Refused):
            return found
        room = longest - 4  # for the three marks and the end
        if room < 8:
            return Refused(f"rows of {longest} tokens have no room for code")
        generator = np.random.Generator(np.random.PCG64(seed_for(0, "fill", row.number)))
        pieces = list(_pieces(found[0], tokenizer, room))
        made = []
        for place, text in enumerate(pieces):
            last = place == len(pieces) - 1
            if generator.random() < self.fill and len(text) > 2:
                made.append(self._filled(text, tokenizer, generator, longest, row.number))
            else:
                ids = tokenizer.encode(text)
                end = [tokenizer.eos_id] if last else []
                made.append(example([tokenizer.eos_id], [*ids, *end], row.number))
        return [one for one in made if one is not None and one.size <= longest and one.learned]

    def _filled(self, text: str, tokenizer: Tokenizer, generator: Any, longest: int, row: int) -> Example | None:
        first, second = sorted(int(at) for at in generator.integers(0, len(text) + 1, size=2))
        prompt = fill_prompt(tokenizer, text[:first], text[second:])
        made = example(prompt, [*tokenizer.encode(text[first:second]), tokenizer.eos_id], row)
        return made if made.size <= longest else example([tokenizer.eos_id], tokenizer.encode(text), row)


def fill_prompt(tokenizer: Tokenizer, before: str, after: str) -> list[int]:
    """The ids after which a model writes what belongs between two texts.

    Raises:
        ConfigError: the tokenizer has no marks for it.
    """
    names = _names(tokenizer)
    if names is None:
        fix = "Tune the model with `bimo tune code` first."
        raise ConfigError("This model cannot fill in the middle.", expected=" ".join(KNOWN[0]), got="none", fix=fix)
    prefix, suffix, middle = (tokenizer.special[name] for name in names)
    return [prefix, *tokenizer.encode(before), suffix, *tokenizer.encode(after), middle]


def _names(tokenizer: Tokenizer) -> tuple[str, str, str] | None:
    return next((names for names in KNOWN if all(name in tokenizer.special for name in names)), None)


def _pieces(text: str, tokenizer: Tokenizer, most: int) -> Sequence[str]:
    """The text in stretches of whole lines, each of at most about ``most`` tokens; a longer line is left out."""
    pieces, held, size = [], list[str](), 0
    lines = text.splitlines(keepends=True)
    for line, ids in zip(lines, tokenizer.encode_batch(lines), strict=True):
        if size + len(ids) > most and held:
            pieces.append("".join(held))
            held, size = [], 0
        if len(ids) <= most:
            held.append(line)
            size += len(ids)
    return [*pieces, "".join(held)] if held else pieces
