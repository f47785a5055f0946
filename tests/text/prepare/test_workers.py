import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bimo.errors import DataError
from bimo.text.prepare import prepare as module
from bimo.text.prepare import workers
from bimo.text.prepare.ledger import LEDGER, read_rows
from bimo.text.prepare.part import Facts, make_part
from bimo.text.prepare.prepare import prepare
from bimo.text.source import open_source

ROOT = Path(__file__).parents[3]
PREPARE = """
import sys
from pathlib import Path
from bimo.config import from_mapping
from bimo.text.prepare import prepare, workers
from bimo.text.prepare.recipe import Recipe
from bimo.text.source import open_source

workers.ALONE_BYTES, prepare.TASK_BYTES = 0, 1_000
off = {"on": False}
recipe = from_mapping(Recipe, {"clean": {"quality": off, "repetition": off}}, where="test")
watch = lambda done: print(done.bytes, flush=True)
prepare.prepare(open_source(sys.argv[1]), Path(sys.argv[2]), recipe, workers=2, watch=watch)
"""


@pytest.fixture
def in_processes(monkeypatch):
    monkeypatch.setattr(workers, "ALONE_BYTES", 0)
    monkeypatch.setattr(module, "TASK_BYTES", 3_000)


@pytest.mark.slow
@pytest.mark.usefixtures("in_processes")
def test_a_file_that_kills_the_process_that_reads_it_is_left_out(deadly_text, folder, tmp_path, loose, written):
    deadly = [folder / "2b.txt", folder / "deep" / "中9.txt"]
    for path in deadly:
        path.write_text(deadly_text)
    manifest = prepare(open_source(folder), tmp_path / "out", loose, workers=2)
    died = {one["file"] for one in manifest["skipped"] if one["reason"] == workers.DIED}
    assert died == {"2b.txt", "deep/中9.txt"}
    rows = list(read_rows(tmp_path / "out" / LEDGER))
    (row,) = [row for row in rows if row.id == "2b.txt"]
    assert row.reason == workers.DIED and row.bytes_dropped == row.bytes_in == len(deadly_text)
    with pytest.raises(DataError, match="2b.txt: the process that read it died"):
        (tmp_path / "out" / "manifest.json").unlink()
        prepare(open_source(folder / "2b.txt", folder / "1.txt", strict=True), tmp_path / "two", loose, workers=2)
    for path in deadly:
        path.unlink()
    without = prepare(open_source(folder), tmp_path / "without", loose)
    assert without["data_hash"] == manifest["data_hash"]
    assert len(rows) == len(list(read_rows(tmp_path / "without" / LEDGER))) + 2


@pytest.mark.slow
def test_a_file_that_may_kill_is_read_in_another_process_however_small(deadly_text, tmp_path, texts, loose):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(deadly_text)
    (tmp_path / "in" / "b.html").write_text(f"<p>{texts.english()}</p>")
    manifest = prepare(open_source(tmp_path / "in"), tmp_path / "out", loose)
    assert [one["reason"] for one in manifest["skipped"]] == [workers.DIED]
    assert manifest["documents"] == 1


@pytest.mark.usefixtures("in_processes")
def test_when_no_process_can_be_started_nothing_is_blamed_on_the_files(folder, tmp_path, loose, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os\nos._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(DataError, match=r"No process can be started.*__main__"):
        prepare(open_source(folder), tmp_path / "out", loose, workers=2)
    assert not list((tmp_path / "out" / "parts").iterdir())


@pytest.mark.usefixtures("in_processes")
def test_a_task_without_enough_memory_is_tried_again_by_halves(folder, tmp_path, loose, monkeypatch):
    class Pool:
        """Does what it is given at once; tasks of more than one file, or of one of them, want too much memory."""

        def __init__(self, *_, **__):
            pass

        def submit(self, work, *task):
            from concurrent.futures import Future

            future = Future()
            if task and (len(task[0].files) > 1 or task[0].files[0].name == "near.txt"):
                future.set_exception(MemoryError())
            else:
                future.set_result(work(*task))
            return future

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    manifest = prepare(open_source(folder), tmp_path / "out", loose)
    assert [one["file"] for one in manifest["skipped"] if one["reason"] == workers.DIED] == ["near.txt"]
    assert manifest["documents"] > 15


def children_of(process):
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_time_the_next_call_goes_on(folder, texts, tmp_path, loose, written, monkeypatch, blow):
    for number in range(40):
        (folder / f"more{number}.txt").write_text(texts.english(60))
    monkeypatch.setattr(module, "TASK_BYTES", 1_000)
    out = tmp_path / "out"
    command = [sys.executable, "-c", PREPARE, str(folder), str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as killed:
        for _ in range(3):  # the first line is of what was finished before
            killed.stdout.readline()
        children = children_of(killed.pid)
        killed.send_signal(blow)
        _, errors = killed.communicate()
    assert killed.returncode == -blow or (blow == signal.SIGINT and "KeyboardInterrupt" in errors)
    assert len(children) == 2
    end = time.monotonic() + 60
    while any(map(alive, children)):
        assert time.monotonic() < end, "workers outlive the process that started them"
        time.sleep(0.05)
    finished = [path for path in (out / "parts").iterdir() if not path.name.startswith(".")]
    before = {name[0] for path in finished for name, *_ in Facts.read(path).files}
    assert not (out / "manifest.json").exists()
    made = []
    prepare(open_source(folder), out, loose, run=lambda tasks: map(make_part, made.extend(tasks) or tasks))
    after = [file.name for task in made for file in task.files]
    assert before and after and not before & set(after)  # what was finished is not read again
    assert sorted([*before, *after]) == sorted(file.name for file in open_source(folder).files)
    prepare(open_source(folder), tmp_path / "whole", loose)
    assert written(out) == written(tmp_path / "whole")
