"""Leaves out what reads unlike clean text that the user names, by the bits a byte that a small model of it needs.

Wenzek et al. 2020 (CCNet, arXiv 1911.00359), section 3.4, fit a 5-gram model to Wikipedia and sort web pages by their
perplexity under it. Here the model is of characters (:mod:`bimo.text.character_model`), so that it needs no tokenizer
and Chinese is read as English is, and the limit is set by held-out pieces of the reference itself. Name reference text
in all the languages, and of all the kinds, that are to stay: text in another is as unlike as noise is. Off by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bimo.config import setting
from bimo.errors import ConfigError
from bimo.text import character_model
from bimo.text.document import Document, Drop, Progress, Step
from bimo.text.source import open_source

MODEL_FILE = "characters.npz"


@dataclass(frozen=True)
class Config:
    """What text must read like, and how much unlike it may be."""

    on: bool = setting(False, "leave out what reads unlike the reference")
    reference: tuple[str, ...] = setting((), "paths or corpora of clean text, in every language that is to stay")
    percentile: float = setting(99.0, "drop what costs more bits than so many of 100 pieces of the reference")
    slack: float = setting(1.0, "bits a byte that may be added to that")
    max_bits: float | None = setting(None, "most bits a byte, in place of the two above")
    model: str = setting("", "the file of the fitted model; written before the first document is read")


def fitted(config: Config, folder: Path, progress: Progress | None = None) -> Config:
    """Fit the model to the reference, save it in ``folder``, and name the file in the configuration.

    The same reference gives the same bytes. It must be called before :func:`build`, which only reads the file.

    Raises:
        ConfigError: no reference is named, or the percentile is none.
        DataError: the reference cannot be read or is too small.
    """
    if not config.reference:
        expected = "paths or corpora of clean text"
        raise ConfigError(
            "clean.perplexity.reference is missing.",
            expected=expected,
            fix="For example: --set clean.perplexity.reference=[wiki-en]",
        )
    if not 0 <= config.percentile <= 100:
        raise ConfigError("clean.perplexity.percentile is wrong.", expected="0 to 100", got=f"{config.percentile:g}")
    path = folder / MODEL_FILE
    character_model.fit(_in_turn(config.reference, progress)).save(path)
    return replace(config, model=str(path))


def build(config: Config) -> Step:
    """The step that drops a document whose beginning costs too many bits a byte; code and tables are not judged.

    Raises:
        DataError: the file of the model is missing or damaged.
    """
    model = character_model.loaded(Path(config.model))
    limit = model.threshold(config.percentile) + config.slack if config.max_bits is None else config.max_bits

    def step(document: Document) -> Document | Drop:
        if document.kind in ("code", "table"):
            return document
        bits = model.bits_per_byte(document.text)
        if bits > limit:
            return Drop("unlike the reference", f"{bits:.2f} bits a byte, expected at most {limit:.2f}")
        return document

    return step


def _in_turn(names: tuple[str, ...], progress: Progress | None) -> Iterator[str]:
    """The texts of several sources, one of each in turn, so that none is left out when enough was read."""
    sources = [iter(open_source(name, progress=progress)) for name in names]
    while sources:
        for source in list(sources):
            document = next(source, None)
            if document is None:
                sources.remove(source)
            else:
                yield document.text
