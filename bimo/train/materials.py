"""What training works on: held-out documents, a tokenizer, and token shards, all inside the run."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimo.batches.shards import Tokens, encode_documents, open_tokens, write_tokens
from bimo.errors import ConfigError, DataError, RunError
from bimo.run import Run
from bimo.text.document import Document
from bimo.text.mix import Mixed, Mixture
from bimo.text.source import Source, open_source
from bimo.text.split import Part, Split, split_source
from bimo.text.store import write_documents
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.origin import prepare_start

SAMPLE_BYTES, PIECE = 2000, 2000  # of text for each token of a tokenizer: more changes little; characters drawn at once
TOKENS_FOLDER, TEST_FOLDER, START_FOLDER = "tokens", "test", "start"  # inside checkpoints/


@dataclass(frozen=True)
class Materials:
    """The inputs of a training run.

    Attributes:
        facts: what the lineage says of the data.
        start: folder of the model that training goes on from, if it does not begin with fresh weights.
    """

    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    facts: dict[str, Any]
    start: Path | None = None

    @property
    def bytes_per_token(self) -> float:
        """Of the training text."""
        return self.train.bytes / self.train.count


def read_text(config: TrainConfig, display: Display) -> tuple[Source, Split]:
    """Read all text once, hash it, and hold documents out.

    Raises:
        ConfigError: the configuration names no data.
        DataError: there is no readable text, or too little to hold some out.
    """
    if not config.data:
        fix = "Add --data PATH_OR_CORPUS, for example --data shakespeare."
        raise ConfigError("There is nothing to train on.", expected="data: files, a folder or a corpus name", fix=fix)
    source = open_source(*config.data, text_column=config.reading.text_column, encoding=config.reading.encoding)
    with display.bar("reading") as advance:
        reading = config.reading
        split = split_source(
            source, seed=config.seed, validation=reading.validation, test=reading.test, progress=advance
        )
    return source, weighted(split, config)


def weighted(split: Split, config: TrainConfig) -> Split:
    """The split with its training part mixed as ``reading.weights`` says; what is held out stays the same."""
    if not config.reading.weights:
        return split
    mixture = Mixture(config.data, config.reading.weights, seed=config.seed)
    return dataclasses.replace(split, train=Mixed(split.train, mixture))


def make_materials(run: Run, config: TrainConfig, source: Source, split: Split, display: Display) -> Materials:
    """Train or load the tokenizer, write the token shards and keep the test documents."""
    tokenizer = _tokenizer(run, config, split, display)
    tokenizer.save(run.path)
    _write_texts(run, tokenizer, source, split, display)
    return open_materials(run, data_facts(source, split))


def _write_texts(run: Run, tokenizer: Tokenizer, source: Source, split: Split, display: Display) -> None:
    """Write the token shards and keep the test documents; the same text and tokenizer give the same bytes."""
    folder = run.checkpoints / TOKENS_FOLDER
    parts = {"train": split.train, "validation": split.validation}
    with display.bar("tokenising") as advance:
        total, done = sum(part.bytes for part in parts.values()), 0
        for name, part in parts.items():
            base = done

            def watched(part: Part = part, base: int = base) -> Iterator[Document]:
                seen = base
                for document in part:
                    yield document
                    seen += len(document.text.encode("utf-8", "surrogatepass"))
                    advance(seen, total)

            write_tokens(
                folder,
                name,
                encode_documents(watched(), tokenizer),
                tokenizer_hash=tokenizer.hash,
                data_hash=split.data_hash,
                vocab_size=tokenizer.vocab_size,
                eos_id=tokenizer.eos_id,
            )
            done += part.bytes
    test = run.checkpoints / TEST_FOLDER
    shutil.rmtree(test, ignore_errors=True)  # a start that was interrupted
    write_documents(split.test, test, lambda: {"source": source.name, "licence": source.licence, "skipped": []})


def data_facts(source: Source, split: Split) -> dict[str, Any]:
    """What the lineage says of the data."""
    return {
        "source": source.name,
        "licence": source.licence,
        "data_hash": split.data_hash,
        "documents": split.documents,
        "bytes": split.bytes,
        **{
            name: {"documents": part.documents, "bytes": part.bytes}
            for name, part in (("train", split.train), ("validation", split.validation), ("test", split.test))
        },
        "note": split.note,
        "skipped": [{"file": one.file, "reason": one.reason} for one in source.skipped],
    }


def _tokenizer(run: Run, config: TrainConfig, split: Split, display: Display) -> Tokenizer:
    if config.start is not None:
        with display.bar("reading the model"):
            return prepare_start(config, (document.text for document in split.train), run.checkpoints / START_FOLDER)
    if config.tokenizer.path is not None:
        return Tokenizer.load(Path(config.tokenizer.path))
    assert config.tokenizer.vocab_size is not None
    return learn_tokenizer(split, config.tokenizer.vocab_size, display)


def learn_tokenizer(split: Split, vocab_size: int, display: Display) -> Tokenizer:
    """A tokenizer of the training text; where that is more than twice what it needs, of a sample from all over it."""
    share = SAMPLE_BYTES * vocab_size / max(1, split.train.bytes)
    with display.bar("learning the tokenizer"):
        texts = (document.text for document in split.train)
        return train_tokenizer(_sampled(texts, share) if share < 0.5 else texts, vocab_size)


def _sampled(texts: Iterable[str], share: float) -> Iterator[str]:
    """About a share of the texts, in pieces of which each is drawn by itself; the same texts give the same ones."""
    drawn = random.Random(0)
    for text in texts:
        for start in range(0, len(text), PIECE):
            if drawn.random() < share:
                yield text[start : start + PIECE]


def reopen_materials(run: Run, facts: dict[str, Any], source: Source, split: Split, display: Display) -> Materials:
    """Open what :func:`make_materials` wrote, or write again what was lost of it; the text is known to be the same."""
    try:
        materials = open_materials(run, facts)
        if any((run.checkpoints / TEST_FOLDER).glob("*")):
            return materials
        problem = f"{run.checkpoints / TEST_FOLDER} is empty."
    except DataError as cause:
        problem = cause.problem
    display.warn(f"{problem} It is made again from the text.")
    _write_texts(run, Tokenizer.load(run.path), source, split, display)
    return open_materials(run, facts)


def open_materials(run: Run, facts: dict[str, Any]) -> Materials:
    """Open what :func:`make_materials` wrote.

    Raises:
        DataError, TokenizerError: a file is missing, damaged, or does not belong to the others.
    """
    tokenizer = Tokenizer.load(run.path)
    folder = run.checkpoints / TOKENS_FOLDER
    train, validation = (
        open_tokens(folder, name, tokenizer_hash=tokenizer.hash, data_hash=facts["data_hash"])
        for name in ("train", "validation")
    )
    start = run.checkpoints / START_FOLDER
    return Materials(tokenizer, train, validation, facts, start if start.is_dir() else None)


def check_unchanged(run: Run, lineage: dict[str, Any], split: Split) -> None:
    """Refuse to resume on other data or with another tokenizer.

    Raises:
        RunError: says which of the two changed.
    """
    found = {"data": split.data_hash, "tokenizer": Tokenizer.load(run.path).hash}
    recorded = {"data": lineage["data"]["data_hash"], "tokenizer": lineage["tokenizer"]["hash"]}
    for what, digest in found.items():
        if digest != recorded[what]:
            raise RunError(
                f"{run.path} cannot be resumed: the {what} changed.",
                expected=f"{what} {recorded[what][:12]}, as when the run began",
                got=digest[:12],
                fix=f"Restore the {what}, or start a new run with another --out.",
            )
