"""The keyword arguments of ``generate`` and ``stream``, Hugging Face's names included, as a checked Sampling."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Any

from bimo.errors import UsageError, did_you_mean
from bimo.generate.sampling import Sampling

HUGGING_FACE = ("max_length", "num_return_sequences", "do_sample")
KNOWN = ("n", *(field.name for field in dataclasses.fields(Sampling)), *HUGGING_FACE)


def read_options(options: Mapping[str, Any], prompt_tokens: int) -> tuple[Sampling, int]:
    """Turn keyword arguments into settings and the number of continuations; an argument of None counts as absent.

    ``max_length`` counts the prompt's tokens, as in transformers. Without a seed, one is drawn.

    Raises:
        UsageError: an argument is unknown (the nearest known one is named), wrong, or contradicts another.
    """
    for name in options:
        if name not in KNOWN:
            raise UsageError(f"Unknown option '{name}'.", fix=did_you_mean(name, KNOWN))
    values = {name: value for name, value in options.items() if value is not None}
    n, same = values.pop("n", None), values.pop("num_return_sequences", None)
    if None not in (n, same) and n != same:
        raise UsageError("n and num_return_sequences differ.", expected="one of them", got=f"{n} and {same}")
    n = n if n is not None else same if same is not None else 1
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UsageError("n is wrong.", expected="a whole number from 1", got=repr(n))
    if "max_length" in values:
        _replace_max_length(values, prompt_tokens)
    do_sample = values.pop("do_sample", None)
    if do_sample is False:
        values["temperature"] = 0
    sampling = Sampling(**values)
    if sampling.greedy and n > 1:
        got, fix = f"n = {n} without chance", "Set a temperature above 0, or ask for one continuation."
        raise UsageError("Greedy continuations are all the same.", expected="n = 1", got=got, fix=fix)
    if sampling.greedy and do_sample:
        raise UsageError("do_sample and a temperature of 0 contradict each other.", fix="Leave one of them out.")
    if sampling.seed is None:
        sampling = dataclasses.replace(sampling, seed=secrets.randbelow(2**32))
    return sampling, n


def _replace_max_length(values: dict[str, Any], prompt_tokens: int) -> None:
    length = values.pop("max_length")
    if "max_new_tokens" in values:
        raise UsageError("max_length and max_new_tokens say the same thing twice.", fix="Leave one of them out.")
    if not isinstance(length, int) or isinstance(length, bool) or length <= prompt_tokens:
        raise UsageError(
            "max_length leaves nothing to generate.",
            expected=f"a whole number above the prompt's {prompt_tokens} tokens",
            got=repr(length),
            fix="Use max_new_tokens, which does not count the prompt.",
        )
    values["max_new_tokens"] = length - prompt_tokens
