"""Memory that is kept while a model learns, and given back afterwards; whether other programs compute."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from bimo import device
from bimo.device import others_compute, reusing_memory

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


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        (["0.00 0.01 0.05 1/76 977"], False),
        (["3.10 0.01 0.05 3/76 977", "3.10 0.01 0.05 1/76 977"], False),  # busy until now, or waking up briefly
        (["0.00 0.01 0.05 2/76 977"] * 3, True),
        (["no such line"], True),
    ],
)
def test_others_compute_if_something_else_runs_at_every_look(
    looks: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(looks)
    monkeypatch.setattr(device.Path, "read_text", lambda self, encoding: next(left))
    assert others_compute() is expected
    assert next(left, None) is None, "it looks no longer than it must"


def test_others_may_compute_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(device.Path, "read_text", missing)
    assert others_compute()
