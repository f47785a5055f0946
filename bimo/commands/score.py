"""``bimo score``: how likely a model finds a text, token by token."""

from __future__ import annotations

import math
from pathlib import Path

from bimo.commands import Device
from bimo.commands.results import counted, print_json, print_table, text_argument, visible
from bimo.errors import UsageError


def score(run: Path, text: str, /, *, json: bool = False, device: Device = "auto") -> None:
    """Give log P(text), and what each token adds to it.

    A token's surprise is -log2 of its probability given all that is before it;
    rank 1 is what the model expected most.

        bimo score runs/quickstart "To be, or not to be"
        bimo score runs/quickstart "却说曹操" --json
        bimo score runs/quickstart - < letter.txt

    Args:
        run: a run directory or a Hugging Face folder
        text: the text, taken as the beginning of a document; - reads it from standard input
        json: print JSON
        device: where to compute; auto takes the best device present
    """
    text = text_argument(text)
    if not text:
        raise UsageError("There is nothing to score.", expected="a text", got="an empty one")
    from bimo.generate.language_model import load

    tokens = load(run, device=device).token_logprobs(text)
    total = sum(token.logprob for token in tokens)
    bits = -total / math.log(2)
    size = len(text.encode("utf-8"))
    if json:
        rows = [{**token._asdict(), "bits": -token.logprob / math.log(2)} for token in tokens]
        print_json({"text": text, "logprob": total, "bits": bits, "bits_per_byte": bits / size, "tokens": rows})
        return
    print(f"log P(text) = {total:.3f} nats = {-bits:.3f} bits")
    print(f"{bits / size:.3f} bits per byte of {counted(size, 'byte')}\n")
    columns = ("token", "id", "probability", "rank", "surprise (bits)")
    rows_shown = (
        (
            f"'{visible(token.text)}'",
            str(token.id),
            f"{100 * math.exp(token.logprob):.3g}%",
            f"{token.rank:,}",
            f"{-token.logprob / math.log(2):.2f}",
        )
        for token in tokens
    )
    print_table(columns, rows_shown, right=columns[1:])
