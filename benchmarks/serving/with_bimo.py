"""bimo's engine, as ``bimo serve`` runs it, its C backend below."""

from __future__ import annotations

from pathlib import Path

from benchmarks.serving.answering import Answer
from benchmarks.serving.cells import LONG_PROMPT, NEW, PROMPT, TOGETHER
from bimo.generate.backend import PAGE
from bimo.generate.engine import Engine
from bimo.generate.native import NativeBackend
from bimo.generate.request import Request, Token
from bimo.generate.sampling import Sampling
from bimo.models import llama, load_model


def load(folder: Path, precision: str, threads: int) -> tuple[Answer, int]:
    """The run in ``folder``."""
    model = load_model(folder)
    assert isinstance(model, llama.Model)
    pages = max(TOGETHER) * -(-(PROMPT + NEW) // PAGE) + LONG_PROMPT // PAGE + 1
    backend = NativeBackend(model, pages=pages, dtype=precision, threads=threads)
    engine = Engine(backend, max_running=max(TOGETHER))

    def answer(prompts: list[list[int]], new: int) -> None:
        greedy = Sampling(max_new_tokens=new, temperature=0)
        handles = [engine.submit(Request(prompt, greedy)) for prompt in prompts]
        while engine.step():
            pass
        for handle in handles:
            assert sum(isinstance(event, Token) for event in handle.result()) == new

    return answer, backend.vocab_size
