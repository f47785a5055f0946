"""Chinese in one script: traditional characters to simplified ones, or the other way.

The conversion is OpenCC's, by phrases and characters. It is off: a model profits from both scripts, and characters that
the other script does not tell apart are lost (乾 and 幹 are both 干). Only a document that is in the other script is
touched, which is one of whose characters the conversion would change a good part: of a simplified novel it changes one
in two thousand, and most of those wrongly. Japanese and Korean, which have characters of their own, stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from bimo.config import setting
from bimo.errors import DataError
from bimo.text.document import Document, Step

ROUNDS = 4
LEAST_CHANGED = 0.05  # of the Chinese characters: then it is the other script
MOST_KANA = 0.02  # as many as Chinese characters: more of them are Japanese
TABLES = {"simplified": "t2s", "traditional": "s2tw"}  # of the traditional standards, Taiwan's

IDEOGRAPH = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
NOT_CHINESE = re.compile("[\u3041-\u30fa\u31f0-\u31ff\uac00-\ud7af\u1100-\u11ff]")  # kana and hangul


@dataclass(frozen=True, slots=True)
class Config:
    """Which script."""

    on: bool = setting(False, "turn Chinese into one script; off, as a model profits from both; needs bimo[text]")
    to: Literal["simplified", "traditional"] = setting("simplified", "the script: simplified or traditional")


def build(config: Config) -> Step:
    """The step.

    Raises:
        DataError: OpenCC is not installed.
    """
    _converter(config.to)

    def step(document: Document) -> Document:
        text = document.text
        if document.kind == "code" or document.language not in ("", "zh") or not IDEOGRAPH.search(text):
            return document
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which OpenCC refuses
            return document
        changed = 0
        for _ in range(ROUNDS):  # a few rare characters change twice
            text, count = _converted(text, _converter(config.to))
            changed += count
            if not count:
                break
        return document.changed(text, f"script: {changed} characters made {config.to}")

    return step


@cache
def _converter(to: str) -> Any:
    try:
        from opencc import OpenCC
    except ModuleNotFoundError:
        raise DataError("Converting Chinese needs OpenCC.", fix="pip install 'bimo[text]', or leave it off.") from None
    return OpenCC(TABLES[to])


def _converted(text: str, converter: Any) -> tuple[str, int]:
    """The text in the other script, and how many characters changed; itself and 0 where it is not in this one."""
    ideographs = len(IDEOGRAPH.findall(text))
    if len(NOT_CHINESE.findall(text)) > MOST_KANA * ideographs:
        return text, 0
    lines = text.split("\n")
    chinese = [number for number, line in enumerate(lines) if not line.isascii() and not NOT_CHINESE.search(line)]
    before = "\n".join(lines[number] for number in chinese)
    after = converter.convert(before)
    changed = sum(map(str.__ne__, before, after))
    if not changed or changed < LEAST_CHANGED * len(IDEOGRAPH.findall(before)):
        return text, 0
    for number, line in zip(chinese, after.split("\n"), strict=True):
        lines[number] = line
    return "\n".join(lines), changed
