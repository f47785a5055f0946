"""``bimo train --watch`` and ``bimo watch``: a page beside the work, which never stands in its way."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bimo.run import Run
from bimo.train import hooks

BUDGET = ("--budget", "6k-tokens")


def state(port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/state?after=-1")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    return found


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimo.report.live.open_browser", lambda url: None)


def test_a_training_can_be_watched_and_comes_to_the_same(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    report = hooks.Report.__call__
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def looking(self: hooks.Report, progress: Any) -> None:
        report(self, progress)
        if progress.step % 5 == 0:
            seen.append(state(port))

    monkeypatch.setattr(hooks.Report, "__call__", looking)
    out = tmp_path / "run"
    called = bimo("train", "--data", text_folder, *BUDGET, "--out", out, "--seed", 3, *tiny, "--watch-port", port)
    assert called.code == 0 and f"live page: http://127.0.0.1:{port}/" in called.err
    assert [found["points"]["step"][-1] for found in seen] == list(range(5, 5 * len(seen) + 1, 5)) and len(seen) > 3
    assert {found["status"] for found in seen} == {"running"} and seen[-1]["points"]["speed"][-1] > 0
    assert seen[-1]["samples"] and seen[-1]["seconds_left"] is not None and seen[-1]["coach"]
    assert (out / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()


def test_a_port_that_is_taken_does_not_stop_a_training(
    bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        called = bimo(
            "train",
            "--data",
            text_folder,
            "--budget",
            "1k-tokens",
            "--out",
            tmp_path / "run",
            *tiny,
            "--watch-port",
            port,
        )
    assert called.code == 0 and f"port {port} cannot be used" in called.err
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_the_last_line_is_the_coachs(bimo: Any, tmp_path: Path, text_folder: Path, tiny: list[str]) -> None:
    called = bimo("train", "--data", text_folder, "--budget", "1k-tokens", "--out", tmp_path / "run", *tiny)
    assert "The training is too short to say how it went. Give it a longer --budget." in called.err.splitlines()[-1]


def test_the_record_says_how_fast_and_how_long(finished_run: Path) -> None:
    records = Run(finished_run).read_metrics()
    assert all(record["steps"] == len(records) for record in records)
    for record in records[1:]:
        assert record["tokens_per_second"] > 0 and record["utilisation"] > 0
    assert records[-1]["seconds_left"] == 0 and records[-1]["processor_seconds_left"] == 0
    assert records[1]["seconds_left"] > 0 and records[1]["processor_seconds_left"] > 0
    peaks = {record["learning_rate"] / record["adamw_learning_rate"] for record in records}
    assert all(peak == pytest.approx(0.02 / 0.006, rel=1e-2) for peak in peaks)
    assert max(record["learning_rate"] for record in records) <= 0.02


def test_a_run_is_watched_from_another_process(finished_run: Path) -> None:
    environment = {**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    command = [sys.executable, "-m", "bimo", "watch", str(finished_run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", line)
            found = state(int(port))
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=60)
        finally:
            child.kill()  # else a failure would wait for it for ever
    assert found["status"] == "finished" and found["points"]["step"]
    assert child.returncode == 0 and "Traceback" not in errors


def test_what_cannot_be_watched(bimo: Any, finished_run: Path, tmp_path: Path) -> None:
    assert "is not a bimo run" in bimo("watch", tmp_path).problem
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        problem = bimo("watch", finished_run, "--port", taken.getsockname()[1]).problem
    assert "cannot be used" in problem and "--port" in problem
    assert "cannot be used" in bimo("watch", finished_run, "--port", 70_000).problem
