"""The table of the serving benchmark, on made-up cells; and does it run at all?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.answering import measure
from benchmarks.serving.cells import CONTENDERS, LONG_PROMPT, NEW, TOGETHER
from benchmarks.serving.table import MISSING, table
from bimo import files

ROOT = Path(__file__).parents[2]


def one_round(seconds: float) -> dict[str, Any]:
    return {case: {"seconds": seconds, "processor_seconds": 2 * seconds} for case in ("1", "8", "32", "prompt")}


def test_the_table_compares_round_by_round_and_names_what_is_missed(tmp_path: Path) -> None:
    rounds: dict[str, list[dict[str, Any]]] = {
        contender.name: [one_round(0.05), one_round(0.1), one_round(0.2)] for contender in CONTENDERS
    }
    rounds["llama.cpp BF16"] = [one_round(0.055), one_round(0.11), one_round(0.1)]
    rounds["transformers bfloat16"] = [one_round(0.2), one_round(0.4), one_round(0.8)]
    rounds["machine"] = [{"bandwidth": 20e9, "peak": 100e9}] * 3
    cell = {"model": "135M", "threads": 2, "weights": [400_000_000, 100_000_000], "rounds": rounds}
    files.write_json(tmp_path / "speed-135M-2.json", cell)
    files.write_json(tmp_path / "server-135M-1.json", {
        "rounds": {"bimo bfloat16": [{"cold_start_seconds": n, "first_token_seconds": n / 10} for n in (3, 4, 9)]}
    })  # fmt: skip
    files.write_json(
        tmp_path / "quality-135M.json", {"bits_per_byte": {"float32": 1.0, "bfloat16": 1.001, "int8": 1.02}}
    )
    lines = table(tmp_path).splitlines()
    (ours,) = (line for line in lines if line.startswith("| bimo bfloat16 | 10 |"))
    # 1 GB of weights in 0.2 processor seconds of two threads; 0.8 GFLOP a token of the prompt
    assert ours == "| bimo bfloat16 | 10 | 80 | 320 | 10 | 50% | 8% |"
    (theirs,) = (line for line in lines if line.startswith("| llama.cpp BF16 |"))
    assert "| 10 (bimo 1.10×, goal 1) |" in theirs and "(bimo 1.10×, **missed** 1.2)" in theirs
    assert "(bimo 4.00×, goal 3)" in next(line for line in lines if line.startswith("| transformers"))
    assert f"**135M, 1 thread**: {MISSING}" in lines
    assert "| bimo bfloat16 | 1 | 4.00 s | 0.40 s |" in lines
    assert "| 135M | 1.0000 | 1.0010 (+0.10%) | 1.0200 (+2.00%) |" in lines


def test_a_token_is_what_a_longer_answer_takes_more() -> None:
    asked = []
    measure(lambda prompts, new: asked.append((len(prompts), {len(prompt) for prompt in prompts}, new)), 50)
    for count in TOGETHER:
        assert {new for many, _, new in asked[1:] if many == count} == {1, NEW}
    assert asked[-1] == (1, {LONG_PROMPT}, 1)


@pytest.mark.slow
def test_it_runs_without_llama_cpp() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "serve.py"), "--without-llama-cpp"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "bimo int8: {'1': {'seconds'" in printed
