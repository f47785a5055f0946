"""Whether a model fits into memory, said before it is loaded."""

from __future__ import annotations

from pathlib import Path

from bimo.errors import ModelError

SHARE = 0.9  # of the free memory that weights may take


def require_memory(folder: Path, free: float, copies: int) -> None:
    """Check before anything is read that the weights fit into memory.

    Args:
        copies: as often as they are in memory at the same time.

    Raises:
        ModelError: they do not; it names both numbers.
    """
    needed = copies * sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if needed > free * SHARE:
        raise ModelError(
            f"The model in {folder} is too large for this machine's memory.",
            expected=f"at most {free * SHARE / 1e9:.2f} GB, {SHARE:.0%} of what is free",
            got=f"{needed / 1e9:.2f} GB while it is loaded",
            fix="Close other programs, or serve a smaller model.",
        )
