"""Writes that are whole or absent, and the hashes that identify what was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bimo.errors import BimoError

TEMPORARY = re.compile(r"\..+\.\w{8}\.tmp")  # as tempfile names what lies beside the path that it will get


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on any error it is removed.

    The bytes are flushed to disk before the rename, so that after a crash ``path`` is the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the result from other users
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes its place, on any error it is removed.

    Args:
        replace: a folder that is not empty may lie at ``path``, and is there as it was until then.

    Raises:
        OSError: the folder cannot be made, or something is at ``path`` that may not be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield folder
        folder.chmod(0o755)
        if replace and path.is_dir():
            _exchange(folder, path)
        else:
            os.replace(folder, path)  # an empty folder makes room
        sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(folder: Path, path: Path) -> None:
    """Put ``folder`` in the place of ``path``, and what was there in the place of ``folder``."""
    old = folder.with_suffix(".old")
    try:
        os.replace(path, old)
        os.replace(folder, path)
    finally:
        if old.exists():
            os.replace(old, folder if path.exists() else path)


def is_unfinished(path: Path) -> bool:
    """Whether an atomic write goes on there, or was cut off by a kill."""
    return TEMPORARY.fullmatch(path.name) is not None


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, atomically, with ``\\n`` line ends on every system."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as readable JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, *, error: type[BimoError] = BimoError, expected: str = "a JSON object") -> dict[str, Any]:
    """Read a JSON object from ``path``.

    Raises:
        error: the file is missing, is not JSON, or is JSON but not an object; ``expected`` says what it should be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} does not exist.", expected=expected, got="no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as cause:
        raise error(f"{path} cannot be read.", expected=expected, got=str(cause)) from None
    if not isinstance(content, dict):
        raise error(f"{path} is not usable.", expected=expected, got=f"a JSON {type(content).__name__}")
    return content


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where fetched text and compiled kernels are kept.

    ``$BIMO_CACHE``, else ``$XDG_CACHE_HOME/bimo``, else ``~/.cache/bimo``.
    """
    if os.environ.get("BIMO_CACHE"):
        return Path(os.environ["BIMO_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bimo"
