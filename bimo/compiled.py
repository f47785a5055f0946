"""C sources of bimo, compiled by this machine's own compiler: in about a second, once, and kept in the cache folder.

Whoever uses one has the same in Python, for machines without a compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from bimo import files
from bimo.device import processor_features, processor_name
from bimo.errors import BimoError

TRAINING = Path(__file__).parent / "models" / "kernels.c"  # here, since models/kernels.py imports torch
TRAINING_FLAGS = (
    *("-O2", "-march=native", "-mprefer-vector-width=512", "-fopenmp"),
    # What -O3 brings here, in a good half of the time that it takes to compile.
    *("-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-tree-slp-vectorize"),
    # Sums may be reordered, so that they use whole vectors; NaN and infinity stay what they are.
    *("-fassociative-math", "-freciprocal-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
# Dropped where a compiler lacks them.
OPTIONAL = ("-fvect-cost-model=dynamic", "-mprefer-vector-width=512", "-fopenmp", "-march=native")

_one_at_a_time = threading.Lock()


def compiler() -> str | None:
    """The C compiler of this machine: ``$CC``, or the first of the usual names."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)


def library(
    source: Path, flags: Sequence[str], *, optional: Sequence[str] = (), error: type[BimoError] = BimoError
) -> ctypes.CDLL:
    """A source as a library, from the cache or made now.

    Args:
        source: it may include headers that lie beside it and whose names begin with its own, as ``source_part.h``.
        flags: of the compiler, beside those that make a library of it.
        optional: those of them that are dropped, one after the other, where a compiler lacks them.

    Raises:
        error: there is no C compiler, or it failed; the message holds what it said.
    """
    found = compiler()
    if found is None:
        raise error("The fast kernels need a C compiler.", expected="cc, gcc or clang", got="none of them")
    try:
        return ctypes.CDLL(str(_made(found, source, flags, optional, error)))
    except OSError as cause:
        fix = "Set BIMO_KERNEL_CACHE to a folder where files may be written, and from which programs may run."
        raise error(f"The library of {source.name} cannot be made or used.", got=str(cause), fix=fix) from None


def ahead() -> None:
    """Make the kernels of training on another core while torch is imported; :func:`library` waits for it."""

    def make(command: str) -> None:
        with contextlib.suppress(BimoError, OSError):
            _made(command, TRAINING, TRAINING_FLAGS, OPTIONAL, BimoError)

    if found := compiler():
        threading.Thread(target=make, args=(found,), daemon=True).start()


def _made(command: str, source: Path, flags: Sequence[str], optional: Sequence[str], error: type[BimoError]) -> Path:
    """The file of a library, from the cache or made now."""
    folder = Path(os.environ.get("BIMO_KERNEL_CACHE") or files.cache_folder() / "kernels")
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob(f"{source.stem}_*.h")))]
    identity = (*texts, command, tuple(flags), processor_name(), sorted(processor_features()))
    path = folder / f"{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.so"
    with _one_at_a_time:
        if not path.is_file():
            with files.atomic_path(path) as temporary:
                compile_to(temporary, command, source, flags, optional=optional, error=error)
    return path


def compile_to(
    path: Path,
    command: str,
    source: Path,
    flags: Sequence[str],
    *,
    optional: Sequence[str] = (),
    error: type[BimoError] = BimoError,
) -> None:
    """Compile a source with a compiler, without those of the ``optional`` flags that it lacks.

    Raises:
        error: it failed.
    """
    left = list(flags)
    for dropped in (None, *optional):
        left = [flag for flag in left if flag != dropped]
        words = [command, *left, "-shared", "-fPIC", str(source), "-o", str(path), "-lm"]
        finished = subprocess.run(words, capture_output=True, text=True, check=False)
        if finished.returncode == 0:
            return
    said = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
    raise error(f"The C compiler {command} cannot compile {source.name}.", got=said[0])
