"""Memory that is kept while a model learns, and given back afterwards; whether other programs compute."""

from __future__ import annotations

import hashlib
import platform
import resource
import threading
from pathlib import Path

import pytest
import torch

from bimo import device
from bimo.device import leaving_cores, return_memory, reusing_memory, running_elsewhere

BYTES = 96 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_freed_tensors_stay_inside_and_go_afterwards() -> None:
    return_memory()  # what earlier tests left free in the heap would be taken without growing
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
        (["0.00 0.01 0.05 1/76 977"], 0),
        (["3.10 0.01 0.05 3/76 977", "3.10 0.01 0.05 1/76 977"], 0),  # busy until now, or waking up briefly
        (["0.00 0.01 0.05 2/76 977"] * 3, 1),
        (["0.00 0.01 0.05 5/76 977", "0.00 0.01 0.05 3/76 977", "0.00 0.01 0.05 4/76 977"], 2),
        (["no such line"], None),
        (["0.00 0.01 0.05 many"], None),
    ],
)
def test_what_runs_elsewhere_is_what_runs_at_every_look(
    looks: list[str], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(looks)
    monkeypatch.setattr(device, "_running_here", lambda: 1)
    monkeypatch.setattr(device.Path, "read_text", lambda self, encoding: next(left))
    assert running_elsewhere() == expected
    assert next(left, None) is None, "it looks no longer than it must"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell")
def test_threads_of_this_process_are_counted_while_they_run() -> None:
    busy = [threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 3_000_000)) for _ in range(2)]
    for thread in busy:
        thread.start()
    running = max(device._running_here() for _ in range(200))
    for thread in busy:
        thread.join()
    assert running >= 3 and device._running_here() >= 1


def test_nobody_knows_what_runs_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(device.Path, "read_text", missing)
    assert running_elsewhere() is None


def test_threads_leave_cores_to_others_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before, told = torch.get_num_threads(), []
    others = iter([0, 2, 2, 977, None, 1, 0])
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(device, "running_elsewhere", lambda: next(others))
    monkeypatch.setattr(device.os, "cpu_count", lambda: 4)
    try:
        torch.set_num_threads(3)
        with leaving_cores("cpu", told.append) as fit_threads:
            taken = [(fit_threads(), torch.get_num_threads()) for _ in range(6)]
            assert taken == [(1, 3), (2 / 3, 2), (2 / 3, 2), (1 / 3, 1), (1, 3), (1, 3)]
            with pytest.raises(KeyError), leaving_cores("cpu") as inner:
                assert inner() == 1
                torch.set_num_threads(1)
                raise KeyError
        assert torch.get_num_threads() == 3 and len(told) == 3
        assert "1 of 3" in told[1] and "free again" in told[2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("where", "spins"), [("cpu", "1000"), ("cuda", None)])
def test_threads_that_sleep_or_only_launch_are_left_alone(
    where: str, spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", spins or "")
    if spins is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setattr(device, "running_elsewhere", lambda: 977)
    monkeypatch.setattr(device.os, "cpu_count", lambda: 1)
    before = torch.get_num_threads()
    with leaving_cores(where) as fit_threads:
        assert fit_threads() == 1 and torch.get_num_threads() == before
