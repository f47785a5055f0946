"""How often the watermark is found where it is, and where it is not; and what it costs the text.

    python benchmarks/watermark.py            # SmolLM2-135M, fetched once; then the table in docs/benchmarks.md
    python benchmarks/watermark.py RUN        # another run, which has learned English
    python benchmarks/watermark.py --table

Unmarked: windows of real articles, each looked through with many keys. Marked: continuations of other articles by the
model, temperature 1. Both are encoded from their text, as a reader would have it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.training.table import replace_between
from bimo import files
from bimo.generate.engine import Engine
from bimo.generate.language_model import load
from bimo.generate.native import NativeBackend
from bimo.generate.request import Request, Token
from bimo.generate.sampling import Sampling
from bimo.generate.watermark import Watermark
from bimo.text.source import open_source

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "watermark.json"
RUN = ROOT / "data" / "bench-watermark" / "smollm2"
LENGTHS, ALPHAS = (25, 50, 100, 200), (1e-2, 1e-4)
ARTICLES, KEYS, CONTINUED, PROMPT = 400, 25, 64, 24
KEY = "the key of the benchmark"


def unmarked(tokenizer: Any) -> dict[str, dict[str, float]]:
    """The share of texts without a mark that is taken for marked, by length and alpha."""
    articles = (document.text for document in open_source("wiki-en"))
    long = (ids for ids in map(tokenizer.encode, articles) if len(ids) >= max(LENGTHS))
    texts = [tokenizer.decode(ids[: max(LENGTHS)]) for ids in itertools.islice(long, ARTICLES)]
    keys = [Watermark(f"{KEY} {number}") for number in range(KEYS)]
    found: dict[str, dict[str, float]] = {}
    for length in LENGTHS:
        values = [key.detect(tokenizer.encode(text)[:length]).p_value for text in texts for key in keys]
        found[str(length)] = {str(alpha): sum(p <= alpha for p in values) / len(values) for alpha in ALPHAS}
    return found


def continued(engine: Engine, prompts: list[list[int]], watermark: Watermark | None) -> list[list[Token]]:
    """What the model writes behind each prompt."""
    sampling = Sampling(max_new_tokens=max(LENGTHS), temperature=1.0)
    handles = [
        engine.submit(Request(prompt, sampling, seed=number, logprobs=0, watermark=watermark))
        for number, prompt in enumerate(prompts)
    ]
    while engine.step():
        pass
    return [[event for event in handle if isinstance(event, Token)] for handle in handles]


def marked(model: Any) -> dict[str, Any]:
    """How often the mark is found, by length and alpha; and nats a token with the mark and without."""
    tokenizer = model.tokenizer
    encoded = (tokenizer.encode(document.text) for document in open_source("boolq-passages"))
    prompts = [ids[:PROMPT] for ids in itertools.islice((ids for ids in encoded if len(ids) > PROMPT), CONTINUED)]
    engine = Engine(NativeBackend(model.model, pages=CONTINUED * 8), max_running=CONTINUED)
    watermark = Watermark(KEY)
    texts = {name: continued(engine, prompts, mark) for name, mark in (("with", watermark), ("without", None))}
    found: dict[str, Any] = {}
    for length in LENGTHS:
        written = [tokenizer.decode([token.id for token in text[:length]]) for text in texts["with"]]
        values = [watermark.detect(tokenizer.encode(text)).p_value for text in written]
        found[str(length)] = {str(alpha): sum(p <= alpha for p in values) / len(values) for alpha in ALPHAS}
    scores = {name: [token.score for text in some for token in text] for name, some in texts.items()}
    nats = {name: statistics.fmean(-score.logprob for score in some if score) for name, some in scores.items()}
    return {"found": found, "nats": nats}


def imported() -> Path:
    """SmolLM2-135M as a run, fetched and imported once."""
    if not RUN.is_dir():
        subprocess.run([sys.executable, "-m", "bimo", "import", "smollm2", "--out", str(RUN)], cwd=ROOT, check=True)
    return RUN


def table(result: dict[str, Any]) -> str:
    """As docs/benchmarks.md shows it."""
    head = "".join(f" alpha {alpha:g}: unmarked | marked |" for alpha in ALPHAS)
    lines = [f"| tokens |{head}", "|---|" + "---|---|" * len(ALPHAS)]
    for length in map(str, LENGTHS):
        pairs = ((result["unmarked"][length][str(a)], result["marked"]["found"][length][str(a)]) for a in ALPHAS)
        lines.append(f"| {length} |" + "".join(f" {wrong:.3%} | **{right:.0%}** |" for wrong, right in pairs))
    nats = result["marked"]["nats"]
    cost = f"Nats a token of the model's own text: {nats['without']:.3f} without the mark, {nats['with']:.3f} with it."
    return "\n".join([*lines, "", cost, ""])


def main() -> None:
    """Read the arguments, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", nargs="?", help="a run that has learned English; SmolLM2-135M if not given")
    parser.add_argument("--table", action="store_true", help="write the table and measure nothing")
    given = parser.parse_args()
    if not given.table:
        model = load(given.run or imported())
        files.write_json(RESULT, {"unmarked": unmarked(model.tokenizer), "marked": marked(model)})
    content = table(files.read_json(RESULT))
    replace_between(ROOT / "docs" / "benchmarks.md", "watermark", content)
    print(content)


if __name__ == "__main__":
    main()
