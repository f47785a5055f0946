"""Programs that a model wrote: what passes, and what none of them can do."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path

import pytest

from bimo.evaluate.programs import run_program, run_programs

LINUX = platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64")
confined = pytest.mark.skipif(not LINUX, reason="seccomp and Landlock are parts of Linux")


def test_a_program_that_comes_to_its_end_passes() -> None:
    source = """
from dataclasses import dataclass
from typing import List
import collections, hashlib, heapq, itertools, json, math, random, re, string
@dataclass
class Point:
    x: int
def 加(numbers: List[int]) -> int:
    return sum(numbers)
assert 加([1, 2, 3]) == 6 and Point(3).x == 3
print("words that nobody reads")
"""
    outcome = run_program(source)
    assert outcome.passed, outcome
    assert outcome.missing == () or not LINUX


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert 1 + 1 == 3, '不对'", "AssertionError: 不对"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(0)\nassert False", "ends before its tests"),
        ("import os\nos._exit(0)", "ends before its tests"),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("input()", "EOFError: EOF when reading a line"),
        ("x = bytearray(2 << 30)", "MemoryError"),
    ],
)
def test_how_a_program_fails(source: str, reason: str) -> None:
    outcome = run_program(source)
    assert not outcome.passed
    assert outcome.reason == reason


def test_an_endless_program_is_stopped() -> None:
    assert run_program("while True: pass", seconds=1).reason == "takes too long"


def test_a_flood_of_words_fills_nothing() -> None:
    outcome = run_program("import sys\nwhile True: sys.stderr.write('x' * 10000)", seconds=1)
    assert not outcome.passed


FORBIDDEN = {
    "the network": "import socket\nsocket.create_connection(('127.0.0.1', {port}))",
    "a socket": "import socket\nsocket.socket(socket.AF_UNIX)",
    "a process": "import os\nos.fork()",
    "a command": "import subprocess\nsubprocess.run(['true'])",
    "a thread's process": "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()",
    "another program in its place": "import os\nos.execv('/bin/true', ['true'])",
    "a signal to its parent": "import os\nos.kill(os.getppid(), 0)",
    "writing a file outside": "open({path!r}, 'a')",
    "reading a file outside": "open({path!r}).read()",
    "removing a file": "import os\nos.unlink({path!r})",
    "cutting a file": "import os\nos.truncate({path!r}, 0)",
    "moving a file": "import os\nos.rename({path!r}, 'mine')",
    "more memory": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "other rights of a file": "import os\nos.chmod({path!r}, 0)",
    "a large file": "open('large', 'w').write('x' * (2 << 20))",
}


@confined
@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_program_cannot_do(what: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("mine")
    path.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = FORBIDDEN[what].format(port=server.getsockname()[1], path=str(path))
        outcome = run_program(source)
    assert not outcome.passed
    refused = ("Permission", "not permitted", "not allowed", "too large", "cross-device")
    assert any(words in outcome.reason for words in refused), outcome
    assert path.read_text() == "mine"
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_program_has_a_folder_of_its_own_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "s3cret")
    source = f"""
import os
open("note", "w").write("一")
assert os.listdir() == ["note"], os.listdir()
assert "SECRET_KEY" not in os.environ and os.path.realpath(os.getcwd()) != {os.path.realpath(os.getcwd())!r}
assert {str(Path(__file__).parents[2])!r} not in __import__("sys").path
"""
    assert run_program(source).passed


def test_hashes_are_not_salted() -> None:
    assert run_program(f"assert hash('bimo') == {_unsalted()}").passed


def _unsalted() -> int:
    import subprocess

    command = [sys.executable, "-c", "print(hash('bimo'))"]
    return int(subprocess.run(command, env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True).stdout)


def test_outcomes_stand_in_order() -> None:
    sources = [f"assert {number} % 3 == 0" for number in range(5)]
    assert [outcome.passed for outcome in run_programs(sources)] == [True, False, False, True, False]
