"""Make a run directory, which is a Hugging Face folder, out of a GGUF file; it appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bimo import __version__, files
from bimo.errors import ModelError, RunError, UsageError, did_you_mean
from bimo.models import write_config
from bimo.models.gguf import GGUF, read_gguf
from bimo.models.gguf_blocks import KINDS, Floats
from bimo.models.gguf_layout import Layout
from bimo.models.imported_card import render
from bimo.models.imported_lineage import imported_lineage
from bimo.run import Run
from bimo.tokenizer import chat
from bimo.tokenizer.gguf_tokenizer import read_tokenizer
from bimo.tokenizer.tokenizer import Tokenizer

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}  # in the header of a safetensors file
SPARE = 64 << 20  # bytes of disk beyond the weights: tokenizer, card and file system
# What the metadata may say of where a model comes from -> what the lineage calls it.
FACTS = {
    "general.name": "name",
    "general.organization": "organization",
    "general.author": "author",
    "general.license": "licence",
    "general.languages": "languages",
    "general.url": "url",
    "general.repo_url": "repository",
    "general.base_model.0.name": "base_model",
}
LONGEST_FACT = 500  # characters

Progress = Callable[[int, int], None]


def import_gguf(
    path: str | Path, out: str | Path, *, dtype: str = "bfloat16", force: bool = False, progress: Progress | None = None
) -> Path:
    """Write the model in a GGUF file as a run directory that bimo and stock transformers load.

    Args:
        path: the file; nothing it says is believed before it is checked.
        out: the folder to make.
        dtype: precision of the weights written, "bfloat16" or "float32".
        force: replace a model that was imported to ``out`` before.
        progress: called with the numbers written so far and in all.

    Returns:
        ``out``.

    Raises:
        ModelError: the file is missing, damaged, or of an architecture, feature or quantisation that is not
            supported, or the folder cannot be written; what lay there before is unharmed.
        TokenizerError: so is its tokenizer.
        RunError: something is at ``out`` that may not be replaced.
        UsageError: there is no such ``dtype``.
    """
    path, out = Path(path), Path(out)
    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype '{dtype}'.", fix=did_you_mean(dtype, DTYPES))
    check_out(out, force)
    file = read_gguf(path)
    layout = Layout(file)
    tokenizer, notes = _tokenizer(file, layout)
    total = layout.numbers
    try:
        _check_room(out, total * DTYPES[dtype].itemsize + SPARE)
        with files.new_folder(out, replace=force) as folder:
            write_config(layout.model, DTYPES[dtype], folder)
            tokenizer.save(folder)
            _write_weights(folder / "model.safetensors", layout, DTYPES[dtype], progress)
            lineage = _lineage(file, layout, tokenizer, dtype, notes)
            files.write_json(folder / "lineage.json", lineage)
            use = "generate" if tokenizer.chat_template is None else "chat"
            files.write_text(folder / "README.md", render(out.name, lineage, use=use))
    except OSError as cause:
        fix = "Free space there or choose another --out; nothing was left behind."
        raise ModelError(f"{out} cannot be written.", got=cause.strerror or str(cause), fix=fix) from None
    return out


def imported(path: Path) -> Path:
    """The run that a GGUF file becomes, in the cache folder; made once for the same bytes.

    Raises:
        ModelError, TokenizerError: as :func:`import_gguf`.
    """
    try:
        digest = files.sha256_file(path)
    except OSError as cause:
        raise ModelError(f"{path} cannot be read.", got=cause.strerror or str(cause)) from None
    out = files.cache_folder() / "imported" / f"{path.stem}-{digest[:12]}-{__version__}"
    if not out.is_dir():  # whole or absent
        out.parent.mkdir(parents=True, exist_ok=True)
        import_gguf(path, out)
    return out


def check_out(out: Path, force: bool) -> None:
    """Make sure that a model may be imported to ``out``.

    Raises:
        RunError: something is there, and it is not an imported model that ``force`` may replace.
    """
    if not out.is_symlink() and (not out.exists() or (out.is_dir() and not any(out.iterdir()))):
        return
    if out.is_dir() and not out.is_symlink() and Run(out).imported:
        if force:
            return
        fix = "Add --force to replace it, or choose another --out."
        raise RunError(f"{out} holds an imported model already.", expected="a new folder", fix=fix)
    expected = "a folder that does not exist yet or is empty"
    got = (
        "something that `bimo import` did not make, which even --force does not replace" if force else "something else"
    )
    raise RunError(f"{out} exists.", expected=expected, got=got, fix="Choose another --out.")


def _check_room(out: Path, wanted: int) -> None:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < wanted:
        fix = "Free space there or choose another --out."
        expected, got = f"{wanted / 1e6:,.0f} MB free", f"{free / 1e6:,.0f} MB"
        raise ModelError(f"There is no room for the model at {out}.", expected=expected, got=got, fix=fix)


def _tokenizer(file: GGUF, layout: Layout) -> tuple[Tokenizer, list[str]]:
    """The tokenizer, and what had to be left out of it."""
    tokenizer = read_tokenizer(file.metadata, str(file.path), layout.model.config.vocab_size)
    notes = []
    if "tokenizer.ggml.pre" not in file.metadata and file.metadata["tokenizer.ggml.model"] == "gpt2":
        notes.append("the file does not say how text is cut into words: cut as llama.cpp does then, which may be wrong")
    if tokenizer.chat_template is not None and (problem := chat.problem(tokenizer.chat_template)):
        notes.append(f"the chat template is left out, as it cannot be used: {problem}")
        tokenizer = Tokenizer(tokenizer.definition, tokenizer.config)
    return tokenizer, notes


def _write_weights(path: Path, layout: Layout, dtype: torch.dtype, progress: Progress | None) -> None:
    """Write a safetensors file tensor by tensor, so that no more than one is in memory."""
    with path.open("wb") as target:
        target.write(_header(layout, dtype))
        done = 0
        for _, numbers in layout.tensors():
            target.write(_packed(numbers, dtype))
            done += numbers.size
            if progress:
                progress(done, layout.numbers)
        target.flush()
        os.fsync(target.fileno())


def _header(layout: Layout, dtype: torch.dtype) -> bytes:
    """The length and the JSON that a safetensors file begins with, filled up with spaces to a multiple of 8."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in layout.model.state_dict().items():
        begin, end = end, end + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    content = json.dumps(header, separators=(",", ":")).encode("utf-8")
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def _packed(numbers: Floats, dtype: torch.dtype) -> memoryview:
    """The bytes of numbers in another precision, in the order of memory."""
    return torch.from_numpy(numbers).to(dtype).contiguous().view(torch.uint8).numpy().data


def _lineage(file: GGUF, layout: Layout, tokenizer: Tokenizer, dtype: str, notes: list[str]) -> dict[str, Any]:
    source = {
        "file": file.path.name,
        "bytes": len(file.data),
        "sha256": hashlib.sha256(file.data).hexdigest(),
        "format": f"GGUF {file.version}",
        "architecture": _fact(file.metadata["general.architecture"]),
        "quantisation": _quantisation(file, layout),
        **{name: text for key, name in FACTS.items() if (text := _fact(file.metadata.get(key)))},
    }
    return imported_lineage(layout.model, tokenizer, dtype, source, events=notes)


def _fact(value: Any) -> str:
    """A text of the metadata, or a list of them, on one line that no terminal acts on."""
    texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    line = "".join(char if char.isprintable() else " " for char in ", ".join(texts))
    return " ".join(line.split())[:LONGEST_FACT]


def _quantisation(file: GGUF, layout: Layout) -> str:
    """The kinds in which the numbers are stored, that of the most numbers first: ``Q4_1, Q8_0, F32``."""
    counts: dict[str, int] = dict.fromkeys(KINDS, 0)
    for entry in file.tensors.values():
        counts[entry.kind] += entry.size
    return ", ".join(sorted(filter(counts.get, counts), key=lambda kind: -counts[kind]))
