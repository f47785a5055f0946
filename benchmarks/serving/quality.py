"""What a precision costs: bits per byte of the same articles, scored by the same engine.

python -m benchmarks.serving.quality RUN      # one line of JSON
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path

from bimo.generate.backend import PAGE
from bimo.generate.engine import Engine
from bimo.generate.native import DTYPES, NativeBackend
from bimo.generate.request import Prompt, Request
from bimo.models import llama, load_model
from bimo.text.source import open_source
from bimo.tokenizer.tokenizer import Tokenizer

ARTICLES, LONGEST = 100, 512


def bits_per_byte(run: Path) -> dict[str, float]:
    """Of the beginnings of articles, their first token given; by precision."""
    model, tokenizer = load_model(run), Tokenizer.load(run)
    assert isinstance(model, llama.Model)
    articles = (tokenizer.encode(document.text)[:LONGEST] for document in open_source("wiki-en"))
    chosen = list(itertools.islice((ids for ids in articles if len(ids) > LONGEST // 4), ARTICLES))
    size = sum(len(tokenizer.token_bytes(id)) for ids in chosen for id in ids[1:])
    found = {}
    for precision in DTYPES:
        backend = NativeBackend(model, pages=4 * LONGEST // PAGE, dtype=precision)
        engine, nats = Engine(backend), 0.0
        handles = [engine.submit(Request(ids, None, prompt_logprobs=0)) for ids in chosen]
        while engine.step():
            pass
        for handle in handles:
            (prompt,) = (event for event in handle.result() if isinstance(event, Prompt))
            nats -= sum(score.logprob for score in prompt.scores or ())
        found[precision] = nats / math.log(2) / size
    return found


if __name__ == "__main__":
    print(json.dumps(bits_per_byte(Path(sys.argv[1]))))
