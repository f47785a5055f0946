"""BLEU of a corpus: n-grams up to 4 that are in a reference too, and a penalty for being short.

Papineni et al. 2002; the value is sacrebleu's (Post 2018, "A call for clarity in reporting BLEU scores") with the same
signature: mixed case, its tokenizations `13a` (of mteval-v13a) and `zh`, exponential smoothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from bimo.evaluate.metric import Metric, Sums, accepted

ORDER = 4
_MARKUP = (("<skipped>", ""), ("-\n", ""), ("\n", " "))
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SPLITS = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),  # all ASCII punctuation but ' , - .
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # stops and commas, but inside numbers
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
# What `zh` sets apart, as sacrebleu does: Han, its radicals and marks, full-width forms, symbols. U+2001 to U+2A6D and
# U+2F81 to U+2FA1 stand where its table means planes above the first; every published value has them.
_CHINESE = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u4db5"
    "\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)


def tokens_13a(text: str) -> list[str]:
    """Words and punctuation, as mteval-v13a separates them."""
    text = text.rstrip()
    for old, new in _MARKUP:
        text = text.replace(old, new)
    if "&" in text:
        for old, new in _ENTITIES:
            text = text.replace(old, new)
    return _separated(f" {text} ")


def tokens_zh(text: str) -> list[str]:
    """Every Chinese character on its own, and words and punctuation of what is between."""
    return _separated(_CHINESE.sub(r" \1 ", text.strip()))


def _separated(text: str) -> list[str]:
    for pattern, apart in _SPLITS:
        text = pattern.sub(apart, text)
    return text.split()


def ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each run of ``order`` tokens occurs."""
    return Counter(tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1))


def _counter(tokenize: Callable[[str], list[str]]) -> Callable[[Sequence[str], Sequence[str]], Sums]:
    def contributions(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Sums:
        """Matches of each order, n-grams of each order, tokens written, tokens of the nearest reference (N, 10)."""
        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            written, wanted = tokenize(prediction), [tokenize(one) for one in accepted(reference)]
            found, total = [], []
            for order in range(1, ORDER + 1):
                known: Counter[tuple[str, ...]] = Counter()
                for one in wanted:
                    known |= ngrams(one, order)
                mine = ngrams(written, order)
                found.append((mine & known).total())
                total.append(mine.total())
            length = min((len(one) for one in wanted), key=lambda size: (abs(size - len(written)), size))
            rows.append([*found, *total, len(written), length])
        return np.array(rows, np.float64)

    return contributions


def _bleu(sums: Sums) -> Sums:
    found, total = sums[..., :ORDER], sums[..., ORDER : 2 * ORDER]
    written, wanted = sums[..., -2], sums[..., -1]
    missing = np.cumsum(found == 0, axis=-1)  # each order without a match counts half of the one before
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(found > 0, found, 0.5**missing) / total
        brevity = np.where(written < wanted, np.exp(1 - wanted / written), 1.0)
        value = 100 * brevity * np.exp(np.log(share).mean(-1))
    possible = (found.sum(-1) > 0) & (total > 0).all(-1)
    return np.where(possible, value, 0.0)


def _signature(tokenization: str) -> str:
    return f"nrefs:1|case:mixed|eff:no|tok:{tokenization}|smooth:exp|version:as sacrebleu 2.6.0"


METRICS = (
    Metric("bleu", "text", _counter(tokens_13a), _bleu, scale="0 to 100", signature=_signature("13a")),
    Metric("bleu_zh", "text", _counter(tokens_zh), _bleu, scale="0 to 100", signature=_signature("zh")),
)
