"""What surrounds a training run, for those who train many: where the text comes from, what watches it, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bimo.run import Run
from bimo.text.source import Source
from bimo.text.split import Split
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.finish import finish
from bimo.train.hooks import Validate
from bimo.train.loop import Hook
from bimo.train.materials import Materials, make_materials, read_text


def _no_hooks(run: Run, validate: Validate) -> Sequence[Hook]:
    return ()


@dataclass(frozen=True)
class Surroundings:
    """The defaults are a run on its own.

    Attributes:
        read: reads the text and holds documents out.
        make: gives the run its tokenizer, token shards and test documents.
        hooks: of a run and its validation, called after each step's validation and record, before its checkpoint.
        finish: measures and documents the run when training has ended.
    """

    read: Callable[[TrainConfig, Display], tuple[Source, Split]] = read_text
    make: Callable[[Run, TrainConfig, Source, Split, Display], Materials] = make_materials
    hooks: Callable[[Run, Validate], Sequence[Hook]] = _no_hooks
    finish: Callable[..., Any] = finish


ALONE = Surroundings()
