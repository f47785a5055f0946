"""The same ids for everybody: bimo's own reader, split and tokenizer, once for a cell and a seed.

The peers are given them; bimo makes them anew in each of its runs, and that time counts for bimo alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.training.cells import VOCABULARY
from bimo import files
from bimo.batches.shards import encode_documents, write_tokens
from bimo.run import Run
from bimo.train.config import ModelConfig, TokenizerConfig, TrainConfig
from bimo.train.display import Display
from bimo.train.materials import TOKENS_FOLDER, make_materials, read_text


def prepare(folder: Path, seed: int, data: tuple[str, ...], vocabulary: int = VOCABULARY) -> None:
    """Make the folder of ``train.bin``, ``validation.bin``, ``test.bin`` (uint16) and ``meta.json``.

    Args:
        data: what ``bimo train --data`` takes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    config = TrainConfig(
        data=data, seed=seed, tokenizer=TokenizerConfig(vocab_size=vocabulary), model=ModelConfig(context=256)
    )
    display = Display(quiet=True)
    source, split = read_text(config, display)
    run = Run.create(folder / "run")
    materials = make_materials(run, config, source, split, display)
    test = write_tokens(
        run.checkpoints / TOKENS_FOLDER,
        "test",
        encode_documents(split.test, materials.tokenizer),
        tokenizer_hash=materials.tokenizer.hash,
        data_hash=split.data_hash,
        vocab_size=materials.tokenizer.vocab_size,
        eos_id=materials.tokenizer.eos_id,
    )
    parts: dict[str, Any] = {}
    for name, tokens in {"train": materials.train, "validation": materials.validation, "test": test}.items():
        shutil.copyfile(tokens.folder / f"{tokens.name}.bin", folder / f"{name}.bin")
        parts[name] = {"bytes": tokens.bytes, "tokens": tokens.count, "documents": tokens.documents}
        if name != "train":
            parts[name]["document_bytes"] = [int(size) for size in tokens.document_bytes]
    shutil.rmtree(folder / "run")
    files.write_json(
        folder / "meta.json",
        {
            "eos_id": materials.tokenizer.eos_id,
            "vocab_size": materials.tokenizer.vocab_size,
            "tokenizer_hash": materials.tokenizer.hash,
            "data_hash": split.data_hash,
            "parts": parts,
        },
    )


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3:]))
