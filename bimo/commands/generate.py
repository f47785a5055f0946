"""``bimo generate``: let a model continue a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bimo.commands import Device
from bimo.commands.results import tell, text_argument
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.generate.language_model import LanguageModel


def generate(
    run: Path,
    prompt: str = "",
    /,
    *,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    stop: list[str] | None = None,
    seed: int | None = None,
    n: int = 1,
    stream: Annotated[bool | None, Parameter(negative="--no-stream")] = None,
    device: Device = "auto",
) -> None:
    """Continue a text.

    Prints the prompt and its continuation; without a prompt, the model begins a
    text of its own.

        bimo generate runs/quickstart "To be, or not to be"
        bimo generate runs/quickstart "却说曹操" --n 5 --temperature 1 --seed 7
        bimo generate runs/code "def " --stop "def " --max-new-tokens 400 > f.py

    Args:
        run: a run directory or a Hugging Face folder
        prompt: the beginning of the text; - reads it from standard input
        max_new_tokens: tokens to generate at most; 200 if not given
        temperature: 0 takes the likeliest token, higher is more varied; 0.8 if not given
        top_k: draw from the k likeliest tokens only
        top_p: draw from the likeliest tokens that together have this probability
        min_p: drop tokens less likely than this share of the likeliest one
        repetition_penalty: above 1, tokens seen before become less likely
        presence_penalty: taken off the logit of each token generated before
        frequency_penalty: taken off the logit of a token for each time it was generated before
        stop: a text that ends the generation and is not printed; can be given several times
        seed: repeats a result; drawn at random, and told, if not given
        n: how many continuations
        stream: print the text while it grows; done in a terminal when n is 1
        device: where to compute; auto takes the best device present
    """
    prompt = text_argument(prompt)
    if stream and n != 1:
        raise UsageError("Only one text can be streamed.", expected="--n 1", got=f"--n {n}", fix="Use --no-stream.")
    from bimo.generate.engaged import LARGE, load_engaged

    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "stop": tuple(stop) if stop else None,
        "seed": seed,
    }
    with load_engaged(run, device, tell, least=LARGE) as model:
        if n == 1 and (sys.stdout.isatty() if stream is None else stream):
            used = _stream(model, prompt, options)
        else:
            used = print_samples(model, prompt, n, options)
    if seed is None and temperature != 0:
        print(f"(--seed {used} repeats this)", file=sys.stderr)


def _stream(model: LanguageModel, prompt: str, options: dict[str, Any]) -> int:
    pieces = model.stream(prompt, **options)
    print(prompt, end="", flush=True)
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            print()
            return int(end.value.seed)


def print_samples(model: LanguageModel, prompt: str, n: int, options: dict[str, Any]) -> int:
    """Print ``n`` continuations, numbered if there are several, and return the seed of them all."""
    import secrets

    if options.get("seed") is None:
        options = {**options, "seed": secrets.randbelow(2**32)}
    for number, completion in enumerate(model.generate(prompt, n=n, **options), start=1):
        if n > 1:
            print(f"--- {number} of {n} ---")
        print(prompt + completion)
    return int(options["seed"])
