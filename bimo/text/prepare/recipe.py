"""What ``bimo prepare`` does to text: how it is read, the cleaning steps in their order, duplicates, arrangement."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bimo import __version__, files
from bimo.config import setting, to_mapping
from bimo.errors import ConfigError
from bimo.text import scan
from bimo.text.clean import (
    boilerplate,
    decontaminate,
    gutenberg,
    language,
    normalise,
    pages,
    perplexity,
    pii,
    quality,
    repetition,
    script,
    toxicity,
    unwrap,
)
from bimo.text.document import Step
from bimo.text.duplicates import SIMILARITY
from bimo.text.readers.record import Options


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    text_column: str = setting("text", "column or key that holds the text of a record")
    encoding: str = setting("auto", "of files without a byte order mark")
    template: str = setting("", "makes the text of a record from several columns: '{title}\\n\\n{body}'")
    time_column: str = setting("", "column or key that says when a record was written")

    def options(self) -> Options:
        """The same, as the readers take it."""
        return Options(**to_mapping(self))


@dataclass(frozen=True)
class Clean:
    """The cleaning steps, in the order in which they are applied."""

    pages: pages.Config = setting(pages.Config, "the pages of a PDF made one text, without running heads")
    normalise: normalise.Config = setting(normalise.Config, "regular Unicode, repaired mojibake, no control characters")
    gutenberg: gutenberg.Config = setting(gutenberg.Config, "what Project Gutenberg puts around its books")
    boilerplate: boilerplate.Config = setting(boilerplate.Config, "what surrounds a text: menus, banners, licences")
    unwrap: unwrap.Config = setting(unwrap.Config, "paragraphs in one line each")
    script: script.Config = setting(script.Config, "Chinese in one script")
    language: language.Config = setting(language.Config, "which language a text is in")
    quality: quality.Config = setting(quality.Config, "what does not read like text")
    repetition: repetition.Config = setting(repetition.Config, "what repeats itself")
    perplexity: perplexity.Config = setting(perplexity.Config, "what reads unlike a reference")
    toxicity: toxicity.Config = setting(toxicity.Config, "toxic and profane text")
    decontaminate: decontaminate.Config = setting(decontaminate.Config, "passages of evaluation sets")
    pii: pii.Config = setting(pii.Config, "personal data and secrets")


STEPS: dict[str, Callable[[Any], Step]] = {
    "pages": pages.build,
    "normalise": normalise.build,
    "gutenberg": gutenberg.build,
    "boilerplate": boilerplate.build,
    "unwrap": unwrap.build,
    "script": script.build,
    "language": language.build,
    "quality": quality.build,
    "repetition": repetition.build,
    "perplexity": perplexity.build,
    "toxicity": toxicity.build,
    "decontaminate": decontaminate.build,
    "pii": pii.build,
}


@dataclass(frozen=True)
class Duplicates:
    """Which copies are left out."""

    exact: bool = setting(True, "leave out texts that differ in case, width and white space alone")
    near: bool = setting(True, "leave out texts that are nearly the same")
    similarity: float = setting(SIMILARITY, "of the words' 5-grams, from which texts are nearly the same")

    def __post_init__(self) -> None:
        if not 0 < self.similarity <= 1:
            got = f"{self.similarity:g}"
            raise ConfigError("duplicates.similarity is wrong.", expected="above 0, at most 1", got=got)


@dataclass(frozen=True)
class Arrangement:
    """In which order documents are written, how often, and which are held out."""

    shuffle: bool = setting(False, "a seeded random order; a mixture always has one")
    mix: tuple[str, ...] = setting((), "how often inputs are read: wiki=2, forum=1")
    most_epochs: tuple[str, ...] = setting((), "the most times that inputs are read: wiki=3")
    target_bytes: int = setting(0, "size of the mixture; 0 = what the weights give")
    split_by: Literal["none", "document", "source", "file", "time"] = setting("none", "hold documents out already now")
    validation: float = setting(0.04, "share of the text held out for validation")
    test: float = setting(0.08, "share of the text held out for the test")
    seed: int = setting(0, "of the order and the split")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what becomes of a document."""

    reading: Reading = setting(Reading, "how files are read")
    clean: Clean = setting(Clean, "the cleaning steps, in order")
    duplicates: Duplicates = setting(Duplicates, "which copies are left out")
    arrangement: Arrangement = setting(Arrangement, "order, mixture and split")

    def work(self) -> dict[str, Any]:
        """What decides about a document by itself, as plain values: with other values, finished parts are useless."""
        own = {"reading": to_mapping(self.reading), "clean": to_mapping(self.clean), "near": self.duplicates.near}
        return {"bimo": __version__, **own}


PASSAGES = "passages.npz"
CLEAN_NOTHING: dict[str, Any] = {
    "clean": {name: {"on": False} for name in STEPS},
    "duplicates": {"exact": False, "near": False},
}


def fingerprint(values: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()[:24]


def build_steps(clean: Clean) -> list[tuple[str, Step]]:
    """The steps that are switched on, by name, in order.

    Raises:
        BimoError: one of them is wrongly configured, or lacks a library.
    """
    chosen = [(field.name, getattr(clean, field.name)) for field in dataclasses.fields(clean)]
    return [(name, STEPS[name](config)) for name, config in chosen if config.on]


def announcements(clean: Clean) -> list[str]:
    """What a user must know before the steps of a fitted recipe run.

    Raises:
        DataError: what a step has learned is missing or damaged.
    """
    said = [scan.announcement(), *([language.announcement()] if clean.language.on else [])]
    said += [decontaminate.announcement(clean.decontaminate)] if clean.decontaminate.on else []
    return list(filter(None, said))


def references(clean: Clean) -> list[str]:
    """The files, folders and corpora that steps learn from.

    Raises:
        ConfigError: standard input is among them, which can be read once only.
    """
    learning = clean.perplexity.reference if clean.perplexity.on else ()
    named = [*learning, *(clean.decontaminate.against if clean.decontaminate.on else ())]
    if "-" in named:
        raise ConfigError("Standard input can be prepared, but not learned from.", fix="Write it to a file first.")
    return named


def fitted(recipe: Recipe, folder: Path) -> tuple[Recipe, str]:
    """The recipe, with what its steps must have learned written to ``folder``; and a hash of what it does to a text.

    Raises:
        BimoError: a reference or an evaluation set cannot be read, or a step is wrongly configured.
    """
    clean, learned = recipe.clean, {}
    if clean.perplexity.on:
        clean = dataclasses.replace(clean, perplexity=perplexity.fitted(clean.perplexity, folder))
        learned["perplexity"] = files.sha256_file(Path(clean.perplexity.model))
    if clean.decontaminate.on:
        clean = dataclasses.replace(
            clean, decontaminate=decontaminate.collected(clean.decontaminate, folder / PASSAGES)
        )
        learned["decontaminate"] = files.sha256_file(Path(clean.decontaminate.index))
    build_steps(clean)  # so that what is wrong with one is said now, and not by a worker
    return dataclasses.replace(recipe, clean=clean), fingerprint([recipe.work(), learned])
