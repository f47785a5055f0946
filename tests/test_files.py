"""Writes that are whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bimo import files
from bimo.errors import DataError

DIE_WHILE_WRITING = """
import os, sys
from pathlib import Path
from bimo import files
with files.atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"字": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert files.read_json(path) == {"字": 1} and [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_kill_9_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    finished = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(path)], check=False)
    assert finished.returncode == -9 and path.read_bytes() == b"old"


def test_folders_are_made_and_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y"
    files.write_bytes(path, b"1")
    assert path.read_bytes() == b"1" and path.stat().st_mode & 0o044
    assert files.sha256_file(path) == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b'"x"', b"[" * 100_000])
def test_what_is_no_object_is_the_callers_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"(?s)a\.json.*Expected a thing; got"):
        files.read_json(path, error=DataError, expected="a thing")
    with pytest.raises(DataError, match="no such file"):
        files.read_json(tmp_path / "b.json", error=DataError)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_permission_is_an_os_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        files.write_text(tmp_path / "a", "x")
