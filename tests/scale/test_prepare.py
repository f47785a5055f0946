import random
import sys
from pathlib import Path

import pytest

from bimo.errors import BimoError
from bimo.scale.prepare import on_ray
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
