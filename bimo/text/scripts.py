"""The scripts that text is written in, by the ranges of Unicode, and the languages that each is used for."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

KANA_WEIGHT = 3

# Script: what a letter weighs (where a letter is a syllable or a word, fewer are written), the languages, the first and
# last of its characters.
SCRIPTS: dict[str, tuple[float, str, tuple[tuple[int, int], ...]]] = {
    "Latin": (
        1,
        """en fr es de it pt nl sv da no nn fi is pl cs sk sl hr bs sq ro hu et lv lt tr az uz tk vi id ms jv su tl mg
        sw so yo ca gl eu oc an co sc rm wa br cy ga gd gv fy li lb af eo ia ie io la vo mt ht qu ku sr""",
        ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    ),
    "Cyrillic": (1, "ru uk be bg sr mk kk ky tg tt ba cv ce os av kv mn", ((0x400, 0x52F),)),
    "Arabic": (1, "ar fa ur ps sd ku", ((0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF))),
    "Hebrew": (1, "he yi", ((0x590, 0x5FF),)),
    "Devanagari": (1, "hi mr ne sa bh", ((0x900, 0x97F),)),
    "Bengali": (1, "bn as", ((0x980, 0x9FF),)),
    "Greek": (1, "el", ((0x370, 0x3FF), (0x1F00, 0x1FFF))),
    "Armenian": (1, "hy", ((0x530, 0x58F),)),
    "Georgian": (1, "ka", ((0x10A0, 0x10FF),)),
    "Gurmukhi": (1, "pa", ((0xA00, 0xA7F),)),
    "Gujarati": (1, "gu", ((0xA80, 0xAFF),)),
    "Oriya": (1, "or", ((0xB00, 0xB7F),)),
    "Tamil": (1, "ta", ((0xB80, 0xBFF),)),
    "Telugu": (1, "te", ((0xC00, 0xC7F),)),
    "Kannada": (1, "kn", ((0xC80, 0xCFF),)),
    "Malayalam": (1, "ml", ((0xD00, 0xD7F),)),
    "Sinhala": (1, "si", ((0xD80, 0xDFF),)),
    "Thaana": (1, "dv", ((0x780, 0x7BF),)),
    "Thai": (1, "th", ((0xE00, 0xE7F),)),
    "Lao": (1, "lo", ((0xE80, 0xEFF),)),
    "Tibetan": (1, "bo", ((0xF00, 0xFFF),)),
    "Burmese": (1, "my", ((0x1000, 0x109F),)),
    "Khmer": (1, "km", ((0x1780, 0x17FF),)),
    "Ethiopic": (2, "am", ((0x1200, 0x137F),)),
    "Hangul": (3, "ko", ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF))),
    "Kana": (KANA_WEIGHT, "ja", ((0x3041, 0x3096), (0x30A1, 0x30FA), (0x31F0, 0x31FF), (0xFF66, 0xFF9D))),
    "Han": (5, "zh", ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xD840, 0xD888))),
}
# First and last characters of scripts that are written without spaces: Thai, Lao, Burmese, Khmer, radicals, the marks,
# kana and bopomofo of East Asia, Han, kana of half width. Dashes, brackets and stops among them are still separators.
UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x312F), (0x31A0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)),
)
LANGUAGES = frozenset(" ".join(languages for _, languages, _ in SCRIPTS.values()).split())
_NAMES = ("", *SCRIPTS)
_WEIGHTS = np.array([0, *(weight for weight, _, _ in SCRIPTS.values())])


@cache
def script_table() -> npt.NDArray[np.uint8]:
    """The number of the script of every UTF-16 unit, 0 for what is no letter; shape (65536,)."""
    table = np.zeros(1 << 16, np.uint8)
    for number, (_, _, ranges) in enumerate(SCRIPTS.values(), start=1):
        for first, last in ranges:
            table[first : last + 1] = number
    return table


def script_weights(text: str) -> dict[str, float]:
    """How much of a text is written in each script, its letters weighed."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    counts = np.bincount(script_table()[units], minlength=len(_NAMES)) * _WEIGHTS
    return dict(zip(_NAMES[1:], counts.tolist()[1:], strict=True))


def is_chinese(text: str) -> bool:
    """Whether most of a text is written in Han characters, and too little in kana to be Japanese."""
    weights = script_weights(text)
    return 0 < weights["Han"] == max(weights.values()) and weights["Kana"] < weights["Han"] / 4


@cache
def languages_of(script: str) -> frozenset[str]:
    """The languages of a script, by their ISO 639-1 codes."""
    return frozenset(SCRIPTS[script][1].split())
