"""The probe is remembered for this very machine and these versions, and for nothing else."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bimo.train import probe as module
from bimo.train.probe import Machine, default_batch, forget, probe

CPU = torch.device("cpu")


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Machine]:
    """An empty cache, and a measurement that is instant and counted."""
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path))
    done: list[Machine] = []

    def measure(device: torch.device, only: int | None = None) -> Machine:
        speed = {"float32": 1e11 + len(done), "bfloat16": 4e11}
        done.append(Machine(speed, speed, 1e10, {64: 0.1, 128: 0.2}))
        return done[-1]

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "BUSY", 0.0)
    return done


def test_measured_once_and_then_remembered(measurements: list[Machine]) -> None:
    first, second = probe(CPU), probe(CPU)
    assert len(measurements) == 1 and not first.cached and second.cached
    assert (second.peak, second.narrow, second.bandwidth, second.efficiency) == (
        first.peak, first.narrow, first.bandwidth, first.efficiency
    )  # fmt: skip


def test_fresh_measures_again_and_replaces(measurements: list[Machine]) -> None:
    probe(CPU)
    assert probe(CPU, fresh=True).peak["float32"] == 1e11 + 1
    assert probe(CPU).peak["float32"] == 1e11 + 1 and len(measurements) == 2


def test_forgotten_is_measured_again(measurements: list[Machine]) -> None:
    probe(CPU)
    forget(CPU)
    probe(CPU)
    assert len(measurements) == 2


def test_what_was_measured_on_a_busy_machine_is_not_remembered(
    measurements: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY", 1e9)
    assert not probe(CPU).cached and not probe(CPU).cached and len(measurements) == 2


def test_speeds_for_one_width_are_remembered_for_that_one(measurements: list[Machine]) -> None:
    probe(CPU, width=128)
    assert probe(CPU, width=128).cached and not probe(CPU, width=64).cached
    assert not probe(CPU).cached and probe(CPU, width=128).cached and len(measurements) == 3


@pytest.mark.parametrize(
    ("wanted", "measured"),
    [(None, [64, 128, 384]), (16, [64]), (64, [64]), (100, [64, 128]), (256, [128, 384]), (768, [384])],
)
def test_only_steps_of_widths_around_a_wanted_one_are_measured(
    wanted: int | None, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_matmul_speeds", lambda _: [dict.fromkeys(module.PRECISIONS, 1e11)] * 2)
    monkeypatch.setattr(module, "_bandwidth", lambda _: 1e10)
    monkeypatch.setattr(module, "_step_speed", lambda *_: 3e10)
    assert [*module.measure(CPU, wanted).efficiency] == measured


@pytest.mark.parametrize("begin", range(1, 17))
def test_a_bad_moment_does_not_choose_the_precision(begin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []

    def seconds_of(work: functools.partial[torch.Tensor], device: torch.device) -> float:
        calls.append(work.args[0].dtype)
        held_up = begin <= len(calls) < begin + module.REPEATS  # as many in a row as there are of each product
        return (2.0 if calls[-1] is torch.float32 else 1.0) * (10 if held_up else 1)

    monkeypatch.setattr(module, "seconds_of", seconds_of)
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda _: True)
    for speeds in module._matmul_speeds(CPU):
        assert speeds["bfloat16"] == 2 * speeds["float32"]
    assert calls.count(torch.float32) == calls.count(torch.bfloat16) == 2 * module.REPEATS


CHANGES: dict[str, tuple[str, Any]] = {
    "processor": ("bimo.device.processor_name", lambda: "another processor"),
    "instructions": ("bimo.train.probe.processor_features", lambda: frozenset({"another"})),
    "cores": ("os.cpu_count", lambda: 977),
    "threads": ("torch.get_num_threads", lambda: 977),
    "torch": ("torch.__version__", "9.9.9"),
    "bimo": ("bimo.train.probe.__version__", "9.9.9"),
    "training step": ("bimo.train.probe.EDITION", 977),
    "cores of this process": ("os.sched_getaffinity", lambda _: set(range(977))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_machine_or_version_is_measured(
    change: str, measurements: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe(CPU)
    with monkeypatch.context() as patch:
        patch.setattr(*CHANGES[change], raising=False)
        probe(CPU)
        assert len(measurements) == 2
    probe(CPU)
    assert len(measurements) == 2


@pytest.mark.parametrize("damage", ["", "{}", "[]", "no json", '{"identity": 1, "machine": {}}', "NEGATIVE", "NAN"])
def test_a_damaged_cache_is_measured_anew(damage: str, measurements: list[Machine], tmp_path: Path) -> None:
    probe(CPU)
    (path,) = (tmp_path / "machine").glob("*.json")
    values = json.loads(path.read_text())
    values["machine"]["peak"]["float32"] = -1.0 if damage == "NEGATIVE" else float("nan")
    path.write_text(json.dumps(values) if damage in ("NEGATIVE", "NAN") else damage)
    assert not probe(CPU).cached and probe(CPU).cached and len(measurements) == 2


def test_a_cache_that_cannot_be_written_only_costs_time(
    measurements: list[Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "file"))
    assert probe(CPU).peak and probe(CPU).peak and len(measurements) == 2


def test_speed_is_interpolated_between_widths_and_constant_beyond() -> None:
    peak = {"float32": 100.0, "bfloat16": 400.0}
    machine = Machine(peak, peak, 1.0, {64: 0.1, 256: 0.3})
    assert [machine.speed(width, "float32") for width in (16, 64, 256, 4096)] == pytest.approx([10, 10, 30, 30])
    assert machine.speed(128, "float32") == pytest.approx(20)
    assert machine.speed(128, "bfloat16") == pytest.approx(80)
    assert Machine(peak, peak).speed(128, "float32") == pytest.approx(module.EFFICIENCY * 100)


def test_a_real_measurement_is_of_plausible_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDTHS", {"cpu": (32,)})
    machine = module.measure(CPU)
    assert all(1e8 < speed < 1e15 for speed in (*machine.peak.values(), *machine.narrow.values()))
    assert 1e8 < machine.bandwidth < 1e13 and 0 < machine.efficiency[32] < 1


def test_a_gpu_gets_rows_enough_to_be_busy() -> None:
    assert default_batch(64, "cuda") == default_batch(1536, "cuda") == 64
    assert default_batch(64) == 8 and default_batch(768, "cpu") == 32
