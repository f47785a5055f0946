"""Sums with their answers: a task whose reward can be verified, in English, Chinese or digits alone."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

Wording: TypeAlias = Literal["bare", "en", "zh"]

ASKED = {"bare": "{} =", "en": "What is {}? Answer with the number only.", "zh": "{}等于多少？只回答数字。"}
SIGNS = ("+", "-", "*")


def problems(
    count: int, *, largest: int = 99, signs: str = "+-", wording: Wording = "en", seed: int = 0
) -> list[dict[str, str]]:
    """Different problems as rows with ``prompt`` and ``answer``; fewer than ``count`` where there are no more.

    Args:
        largest: number that is added, taken away (never below 0) or multiplied.
        signs: some of ``+-*``.
    """
    assert signs and set(signs) <= set(SIGNS)
    every = (largest + 1) ** 2 * len(signs)
    generator = random.Random(seed)
    rows = []
    for number in generator.sample(range(every), min(count, every)):
        number, sign = divmod(number, len(signs))
        first, second = divmod(number, largest + 1)
        if signs[sign] == "-":
            first, second = max(first, second), min(first, second)
        value = {"+": first + second, "-": first - second, "*": first * second}[signs[sign]]
        rows.append({"prompt": ASKED[wording].format(f"{first} {signs[sign]} {second}"), "answer": str(value)})
    return list({row["prompt"]: row for row in rows}.values())
