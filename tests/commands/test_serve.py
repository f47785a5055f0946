"""``bimo serve``: what is wrong is said before anything is loaded."""

from __future__ import annotations

import importlib.util
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bimo.serve.keys import ENVIRONMENT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model's until its weights are read."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def test_a_folder_that_is_no_model(bimo: Callable[..., Any], tmp_path: Path) -> None:
    for path, got in ((tmp_path / "none", "no such folder"), (tmp_path, "one without config.json")):
        called = bimo("serve", path)
        assert "There is no model at" in called.problem and got in called.problem


def test_a_port_in_use(bimo: Callable[..., Any], folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} cannot be used" in bimo("serve", folder, "--port", port).problem
    assert "0 to 65535" in bimo("serve", folder, "--port", 70_000).problem
    assert "cannot be used" in bimo("serve", folder, "--host", "203.0.113.7", "--no-keys").problem


def test_a_broken_model_frees_the_port(bimo: Callable[..., Any], folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "vocab_size" in bimo("serve", folder, "--port", port).problem
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_other_machines_need_keys(
    bimo: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    called = bimo("serve", folder, "--host", "0.0.0.0")
    assert called.code == 2 and "--api-keys" in called.problem
    monkeypatch.setenv(ENVIRONMENT, "ann=tooshort")
    assert "at least 16" in bimo("serve", folder).problem
    monkeypatch.delenv(ENVIRONMENT)
    assert "cannot be read" in bimo("serve", folder, "--api-keys", tmp_path / "none").problem


def test_limits_that_make_no_sense(bimo: Callable[..., Any], folder: Path) -> None:
    for option, value in (("--running", 0), ("--queue", -1), ("--body-bytes", 0), ("--requests-per-minute", 0)):
        called = bimo("serve", folder, option, value)
        assert called.code == 2 and option.strip("-").replace("-", "_") in called.problem, option


def test_two_models_need_two_names(bimo: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    called = bimo("serve", folder, folder)
    assert called.code == 2 and "the same name" in called.problem
    assert "one name for each of 1 models" in bimo("serve", folder, "--name", "a", "--name", "b").problem
    assert bimo("serve").code == 2


def test_settings_of_the_engine_that_make_no_sense(bimo: Callable[..., Any], folder: Path) -> None:
    for option, value in (("--speculate", 99), ("--kv-memory", "much")):
        called = bimo("serve", folder, option, value)
        assert called.code == 2 and f"{option} is wrong" in called.problem


def test_without_the_libraries(bimo: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else find(name, *rest)
    )
    problem = bimo("serve", folder).problem
    assert "no uvicorn" in problem and "bimo[serve]" in problem
