import random
import socket
import sys
import types
from pathlib import Path

import pytest

from bimo.errors import BimoError
from bimo.scale.prepare import _check_reachable, on_ray
from bimo.text.prepare import prepare as module
from bimo.text.prepare.prepare import prepare
from bimo.text.source import open_source

ROOT = Path(__file__).parents[2]
WORDS = ["the", "king", "of", "and", "to", "said", "that", "moon", "with", "night", "have", "be", "ship", "harbour"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TASK_BYTES", 700)
    folder = tmp_path / "in"
    folder.mkdir()
    chance = random.Random(0)
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"却说 {' '.join(chance.choices(WORDS, k=50))}.", encoding="utf-8")
    return folder


def written(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != ".lock"}


@pytest.mark.slow
def test_a_cluster_writes_what_one_machine_does_whatever_dies(deadly_text, folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    monkeypatch.chdir(tmp_path)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert prepare(open_source("in"), Path("local"))["documents"] == 12
        prepare(open_source("in"), Path("ray"), run=on_ray())
        assert written(tmp_path / "ray") == written(tmp_path / "local")
        assert ray.is_initialized() and ray.data.DataContext.get_current().max_errored_blocks == 0
        (folder / "7b.txt").write_text(deadly_text)
        manifest = prepare(open_source("in"), Path("ray"), run=on_ray())
        assert [one["file"] for one in manifest["skipped"]] == ["7b.txt"] and manifest["documents"] == 12
    finally:
        ray.shutdown()


def test_without_ray_the_error_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BimoError, match=r"pip install 'bimo\[ray\]'"):
        prepare(open_source(folder), tmp_path / "out", run=on_ray())


def test_an_address_where_nobody_answers_is_an_error_before_ray_waits(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _check_reachable(f"127.0.0.1:{port}")
        _check_reachable(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999"):
        with pytest.raises(BimoError, match=rf"no Ray cluster at {address}.*(?s:.*)ray start --head"):
            _check_reachable(address)
    asked = []
    monkeypatch.setattr(socket, "create_connection", lambda *where, **how: asked.append((where[0], how)) or server)
    for address in ("", "auto", "local", "http://a.example:8265", "ray://a.example", "[::1]:6379"):
        _check_reachable(address)
    assert asked == [(("a.example", 10001), {"timeout": 5}), (("::1", 6379), {"timeout": 5})]


def test_the_address_is_asked_before_ray_is_started(folder, tmp_path, monkeypatch):
    ray = types.ModuleType("ray")
    ray.data, ray.is_initialized = types.ModuleType("ray.data"), lambda: False
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(BimoError, match=f"no Ray cluster at 127.0.0.1:{port}"):
        prepare(open_source(folder), tmp_path / "out", run=on_ray())
