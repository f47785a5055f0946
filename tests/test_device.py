"""Memory that is kept while a model learns, and given back afterwards."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from bimo.device import reusing_memory

BYTES = 96 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_freed_tensors_stay_inside_and_go_afterwards() -> None:
    before = resident()
    torch.ones(BYTES // 4)
    assert resident() < before + BYTES // 2
    for _ in range(2):
        with reusing_memory():
            torch.ones(BYTES // 4)
            assert resident() > before + BYTES // 2
        assert resident() < before + BYTES // 2
        torch.ones(BYTES // 4)
        assert resident() < before + BYTES // 2
    with pytest.raises(KeyError), reusing_memory():
        torch.ones(BYTES // 4)
        raise KeyError
    assert resident() < before + BYTES // 2
