"""``bimo detect-watermark``: whether a text carries the mark of a key."""

from __future__ import annotations

import os
from pathlib import Path

from bimo.commands.results import print_json, text_argument
from bimo.errors import UsageError

KEY = "BIMO_WATERMARK_KEY"


def detect_watermark(
    run: Path,
    text: str,
    /,
    *,
    key_file: Path | None = None,
    gamma: float = 0.25,
    width: int = 2,
    alpha: float = 1e-4,
    json: bool = False,
) -> None:
    """Say whether a text carries the watermark of a key.

    The p-value is the probability that a text without the mark looks as
    marked as this one. Texts below some 50 tokens seldom tell.

        export BIMO_WATERMARK_KEY="a long secret of yours"
        bimo detect-watermark runs/quickstart - < letter.txt
        bimo detect-watermark runs/quickstart "却说曹操……" --key-file key.txt

    Exit code: 0 if the mark is found, 3 if it is not.

    Args:
        run: the run directory or Hugging Face folder whose tokenizer wrote the text
        text: the text; - reads it from standard input
        key_file: a file that holds the key; by default it is the environment variable BIMO_WATERMARK_KEY
        gamma: share of the vocabulary that is green, as the text was generated with
        width: tokens that choose the green ones, as the text was generated with
        alpha: the largest p-value that counts as found, so also the share of unmarked texts that is taken for marked
        json: print JSON
    """
    text = text_argument(text)
    from bimo.generate.watermark import Watermark
    from bimo.tokenizer.tokenizer import Tokenizer

    watermark = Watermark(read_key(key_file), gamma=gamma, width=width)
    found = watermark.detect(Tokenizer.load(run).encode(text))
    marked = found.p_value <= alpha
    if json:
        counts = {"pairs": found.pairs, "green": found.green, "z_score": found.z_score, "p_value": found.p_value}
        print_json({"marked": marked, **counts, "alpha": alpha})
    else:
        share = found.green / max(found.pairs, 1)
        print("the mark is in this text" if marked else "no mark was found")
        print(f"{found.green:,} of {found.pairs:,} places are green: {share:.1%}, where chance has {gamma:.0%}")
        print(f"p-value {found.p_value:.3g} (found: {alpha:g} or less)")
    raise SystemExit(0 if marked else 3)


def read_key(path: Path | None) -> str:
    """The key of a watermark, from a file or the environment, so that it is in no list of processes.

    Raises:
        UsageError: there is none.
    """
    if path is not None:
        return path.read_text(encoding="utf-8").strip()
    if not (key := os.environ.get(KEY, "").strip()):
        fix = f"Write it into a file and name that with --key-file, or set {KEY}."
        raise UsageError("A watermark needs its key.", fix=fix)
    return key
