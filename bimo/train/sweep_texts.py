"""The text of a sweep: read, held out and tokenised once, and shared by all its trials."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bimo.batches.shards import EncodedDocument, Tokens, encode_documents, open_tokens, write_tokens
from bimo.errors import DataError
from bimo.run import Run
from bimo.text.document import Document
from bimo.text.mix import Mixture
from bimo.text.source import Source, open_source
from bimo.text.split import Part, Split
from bimo.text.store import is_prepared, write_documents
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.anchor import Anchor, measure_anchor
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.materials import (
    TEST_FOLDER,
    TOKENS_FOLDER,
    Materials,
    data_facts,
    learn_tokenizer,
    open_materials,
    read_text,
    weighted,
)

COUNTING_SECONDS = 2e-6  # for a token of an n-gram, until the text was measured


class SharedTexts:
    """Held-out documents, tokenizers and token shards in one folder; a trial gets links to them.

    Every trial validates on the same documents, whatever its mixture, and none of them is in any training text.

    Args:
        config: what all trials share of the reading; weights in it do not count.
    """

    def __init__(self, folder: Path, config: TrainConfig, display: Display) -> None:
        self._folder, self._display = folder, display
        self.counting_seconds = COUNTING_SECONDS
        unweighted = dataclasses.replace(config, reading=dataclasses.replace(config.reading, weights=()))
        self.source, self.split = read_text(unweighted, display)

    def read(self, config: TrainConfig, display: Display) -> tuple[Source, Split]:
        """The text of a trial, as :func:`bimo.train.materials.read_text` gives it."""
        return self.source, weighted(self.split, config)

    def prepare(self, config: TrainConfig) -> Tokenizer:
        """Make the tokenizer and the token shards that a trial needs, if they are not there yet.

        Raises:
            DataError, TokenizerError: the tokenizer or the text does not allow it.
        """
        tokenizer = self._tokenizer(config)
        if not is_prepared(self._folder / TEST_FOLDER):
            facts: dict[str, Any] = {"source": self.source.name, "licence": self.source.licence, "skipped": []}
            write_documents(self.split.test, self._folder / TEST_FOLDER, lambda: facts)
        self._shards(tokenizer)
        return tokenizer

    def anchor(self, config: TrainConfig) -> Anchor:
        """How hard the text is, for the plan; makes the tokenizer and the shards that it is measured with."""
        tokenizer = self.prepare(config)
        anchor = measure_anchor(self._shards(tokenizer)[0], open_source(self._folder / TEST_FOLDER), tokenizer)
        self.counting_seconds = anchor.counting_seconds
        return anchor

    def make(self, run: Run, config: TrainConfig, source: Source, split: Split, display: Display) -> Materials:
        """Give a trial its materials, as :func:`bimo.train.materials.make_materials` would."""
        tokenizer = self.prepare(config)
        tokenizer.save(run.path)
        folder = run.checkpoints / TOKENS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        train, _ = self._shards(tokenizer)
        for path in train.folder.iterdir():
            if not config.reading.weights or path.name.startswith("validation"):
                _link(path, folder / path.name)
        if config.reading.weights:
            self._write(folder, "train", _mixed(train, config.data, config), tokenizer)
        shutil.copytree(self._folder / TEST_FOLDER, run.checkpoints / TEST_FOLDER, copy_function=_link)
        return open_materials(run, data_facts(source, split))

    def _tokenizer(self, config: TrainConfig) -> Tokenizer:
        if config.tokenizer.path is not None:
            return Tokenizer.load(Path(config.tokenizer.path))
        assert config.tokenizer.vocab_size is not None
        folder = self._folder / f"tokenizer-{config.tokenizer.vocab_size}"
        if (folder / "whole").exists():
            return Tokenizer.load(folder)
        tokenizer = learn_tokenizer(self.split, config.tokenizer.vocab_size, self._display)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder)
        (folder / "whole").touch()  # the mark that nothing cut the writing off
        return tokenizer

    def _shards(self, tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
        folder = self._folder / f"tokens-{tokenizer.hash[:12]}"
        try:
            return self._open(folder, "train", tokenizer), self._open(folder, "validation", tokenizer)
        except DataError:  # not made yet, or cut off while it was
            folder.mkdir(parents=True, exist_ok=True)
        with self._display.bar("tokenising") as advance:
            total = self.split.train.bytes + self.split.validation.bytes
            seen = 0

            def watched(part: Part) -> Iterator[Document]:
                nonlocal seen
                for document in part:
                    yield document
                    seen += len(document.text.encode("utf-8", "surrogatepass"))
                    advance(seen, total)

            return (
                self._write(folder, "train", encode_documents(watched(self.split.train), tokenizer), tokenizer),
                self._write(
                    folder, "validation", encode_documents(watched(self.split.validation), tokenizer), tokenizer
                ),
            )

    def _open(self, folder: Path, name: str, tokenizer: Tokenizer) -> Tokens:
        data_hash = self.split.data_hash
        return open_tokens(folder, name, tokenizer_hash=tokenizer.hash, data_hash=data_hash, verify=False)

    def _write(self, folder: Path, name: str, documents: Iterator[EncodedDocument], tokenizer: Tokenizer) -> Tokens:
        return write_tokens(
            folder,
            name,
            documents,
            tokenizer_hash=tokenizer.hash,
            data_hash=self.split.data_hash,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
        )


def _mixed(tokens: Tokens, names: Sequence[str], config: TrainConfig) -> Iterator[EncodedDocument]:
    """The documents of a shard, each as often as the mixture says, without encoding anything again."""
    mixture = Mixture(names, config.reading.weights, seed=config.seed)
    ends = [*(int(start) for start in tokens.starts[1:]), tokens.count]
    with (tokens.folder / f"{tokens.name}.ids.jsonl").open(encoding="utf-8") as ids:
        for line, start, end, size in zip(ids, tokens.starts, ends, tokens.document_bytes, strict=True):
            document = str(json.loads(line))
            for _ in range(mixture.copies(document)):
                yield document, int(size), tokens.ids[int(start) + 1 : end]  # type: ignore[misc]


def _link(source: str | Path, target: str | Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
