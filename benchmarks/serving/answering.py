"""How fast a library answers: the same measurement for each. Imports no library, because each has its environment.

python -m benchmarks.serving.answering LIBRARY PRECISION MODEL THREADS     # one line of JSON
"""

from __future__ import annotations

import importlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.serving.cells import LONG_PROMPT, NEW, PROMPT, TOGETHER

# Continues each prompt by so many tokens, the likeliest ones, all prompts together.
Answer = Callable[[list[list[int]], int], None]
LIBRARIES = {
    "bimo": "benchmarks.serving.with_bimo",
    "llama.cpp": "benchmarks.serving.with_llama_cpp",
    "transformers": "benchmarks.serving.with_transformers",
}
REPEATS = 3


def measure(answer: Answer, vocab_size: int) -> dict[str, dict[str, float]]:
    """Seconds and processor seconds of one token: of an answer, by how many are answered together, and of a prompt.

    A token of an answer is what a longer answer takes more than one of a single token, divided by the difference: the
    prompts, which are new each time, do not count.
    """
    draw = random.Random(0)

    def timed(count: int, length: int, new: int) -> tuple[float, float]:
        prompts = [[draw.randrange(3, vocab_size) for _ in range(length)] for _ in range(count)]
        wall, processor = time.perf_counter(), time.process_time()
        answer(prompts, new)
        return time.perf_counter() - wall, time.process_time() - processor

    timed(1, PROMPT, 2)  # warms up
    found = {}
    for count in TOGETHER:
        pairs = [(timed(count, PROMPT, 1), timed(count, PROMPT, NEW)) for _ in range(REPEATS)]
        found[str(count)] = _middle([(long[i] - short[i]) / (NEW - 1) for short, long in pairs] for i in (0, 1))
    whole = [timed(1, LONG_PROMPT, 1) for _ in range(REPEATS)]
    found["prompt"] = _middle([one[i] / LONG_PROMPT for one in whole] for i in (0, 1))
    return found


def _middle(columns: Any) -> dict[str, float]:
    wall, processor = (statistics.median(column) for column in columns)
    return {"seconds": wall, "processor_seconds": processor}


def main(library: str, precision: str, model: str, threads: str) -> None:
    """Measure one library, and print what was found."""
    answer, vocab_size = importlib.import_module(LIBRARIES[library]).load(Path(model), precision, int(threads))
    print(json.dumps(measure(answer, vocab_size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
