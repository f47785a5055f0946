"""Words as a bag-of-words model wants them: segmented, without stop words, stemmed.

For the n-gram and word2vec rungs of the ladder, and for search. A language model gets none of this: it must write
"the", "went" and 的 itself, so it has to read them; its tokenizer learns which pieces make up a word; and text that
was stemmed or segmented cannot be turned back into what was written.
"""

from __future__ import annotations

import re
from functools import lru_cache

from bimo.errors import DataError

# Function words, and forms of be, have and do; lower case.
_ENGLISH = """
    a about above after again against all also am an and any are as at be because been before being below between
    both but by can cannot could did do does doing down during each either else ever every few for from further had
    has have having he her here hers herself him himself his how however i if in into is it its itself just me more
    most much must my myself neither no nor not of off on once one only or other our ours ourselves out over own
    rather same shall she should since so some such than that the their theirs them themselves then there these they
    this those though through thus to too under until up upon us very was we were what when where whether which
    while who whom whose why will with within without would yet you your yours yourself yourselves
"""
# Particles, pronouns, prepositions, conjunctions and measure words, simplified and traditional.
_CHINESE = """
    的 了 着 著 过 過 地 得 吗 嗎 呢 吧 啊 呀 哦 嘛 么 麼 之 乎 者 也 矣 焉 哉 我 你 您 他 她 它 我们 我們 你们 你們
    他们 他們 她们 她們 它们 它們 咱们 咱們 自己 这 這 那 此 这个 這個 那个 那個 这些 這些 那些 这里 這裡 那里 那裡
    这样 這樣 那样 那樣 谁 誰 什么 什麼 怎么 怎麼 哪 哪里 哪裡 哪个 哪個 几 幾 多少 为什么 為什麼 是 有 在 和 与 與
    及 或 或者 并 並 而 而且 但 但是 却 卻 因为 因為 所以 如果 虽然 雖然 即使 不过 不過 然而 于是 於是 因此 由于
    由於 以及 对 對 对于 對於 关于 關於 从 從 自 到 向 往 于 於 以 为 為 为了 為了 被 把 将 將 让 讓 给 給 跟 同 比
    按 按照 根据 根據 除了 不 没 沒 没有 沒有 都 就 才 又 再 还 還 很 更 最 太 只 已 已经 已經 正在 曾 会 會 能 可以
    可 要 应该 應該 上 下 中 里 裡 内 內 外 前 后 後 时 時 个 個 一 一个 一個 一些 每 各 其 其中 等 等等 所 则 則 若
    乃 便 即 曰
"""
ENGLISH_STOP_WORDS, CHINESE_STOP_WORDS = frozenset(_ENGLISH.split()), frozenset(_CHINESE.split())
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
PAIRED = re.compile("[\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str, language: str, *, stop_words: bool = True, stem: bool = False) -> list[str]:
    """The words of a text in their order, in lower case, without punctuation.

    Chinese (``zh``) is segmented by jieba's dictionary. Japanese is cut into overlapping pairs of characters, which
    need none. Other languages are cut where letters and digits end; ``don't`` is one word.

    Args:
        language: an ISO 639-1 code.
        stop_words: whether to leave words like "the" and 的 in.
        stem: whether English words are cut down to their stem by :func:`porter_stem`.

    Raises:
        DataError: the text is Chinese and rjieba is not installed.
    """
    if language == "zh":
        found = [word for word in segmented(text.lower()) if WORD.fullmatch(word)]
    elif language == "ja":
        found = [pair for word in WORD.findall(text.lower()) for pair in _pairs(word)]
    else:
        found = WORD.findall(text.lower())
    if not stop_words:
        found = [word for word in found if word not in ENGLISH_STOP_WORDS and word not in CHINESE_STOP_WORDS]
    return [porter_stem(word) for word in found] if stem and language == "en" else found


def segmented(text: str) -> list[str]:
    """The words of a Chinese text by jieba's dictionary, with everything between them.

    Raises:
        DataError: rjieba is not installed.
    """
    try:
        import rjieba
    except ModuleNotFoundError:
        raise DataError("Finding the words of Chinese needs rjieba.", fix="pip install 'bimo[text]'.") from None
    return rjieba.cut(text.encode("utf-8", "replace").decode("utf-8"))


def _pairs(word: str) -> list[str]:
    if len(word) < 2 or not PAIRED.fullmatch(word):
        return [word]
    return [word[at : at + 2] for at in range(len(word) - 1)]


# Suffixes and what takes their place, of steps 2 to 4 of the paper; the longest that fits counts.
_STEP_2 = """
    ational=ate tional=tion enci=ence anci=ance izer=ize abli=able alli=al entli=ent eli=e ousli=ous ization=ize
    ation=ate ator=ate alism=al iveness=ive fulness=ful ousness=ous aliti=al iviti=ive biliti=ble
"""
_STEP_3 = "icate=ic ative= alize=al iciti=ic ical=ic ful= ness="
_STEP_4 = "al= ance= ence= er= ic= able= ible= ant= ement= ment= ent= ion= ou= ism= ate= iti= ous= ive= ize="
_STEPS = [
    (measure, {suffix: by for suffix, _, by in (rule.partition("=") for rule in rules.split())})
    for measure, rules in ((0, _STEP_2), (0, _STEP_3), (1, _STEP_4))
]
_LONGEST_SUFFIX = 7


@lru_cache(1 << 16)
def porter_stem(word: str) -> str:
    """The stem of an English word in lower case.

    Source: M. F. Porter, "An algorithm for suffix stripping", Program 14 (1980). Words with other characters than a-z
    stay, but for a possessive ending.
    """
    word = re.sub("['’]s?$", "", word)
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return word
    word = _past_and_plural(word)
    if word.endswith("y") and "v" in _form(word[:-1]):
        word = word[:-1] + "i"
    for measure, suffixes in _STEPS:
        word = _replaced(word, suffixes, measure)
    if word.endswith("e"):
        measure = _form(word[:-1]).count("vc")
        if measure > 1 or (measure == 1 and not _ends_short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _form(word[:-1]).count("vc") > 1:
        word = word[:-1]
    return word


def _form(stem: str) -> str:
    """The stem in ``c`` and ``v``, consonants and vowels; ``y`` is a vowel after a consonant."""
    form = ""
    for letter in stem:
        form += "v" if letter in "aeiou" or (letter == "y" and form[-1:] == "c") else "c"
    return form


def _ends_short(stem: str) -> bool:
    """Whether it ends like ``hop``: consonant, vowel, consonant, and the last is none of w, x, y."""
    return _form(stem).endswith("cvc") and stem[-1] not in "wxy"


def _past_and_plural(word: str) -> str:
    """Step 1a and 1b."""
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if "vc" in _form(word[:-3]) else word
    for suffix in ("ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem != word and "v" in _form(stem):
            if stem.endswith(("at", "bl", "iz")):
                return stem + "e"
            if len(stem) > 1 and stem[-1] == stem[-2] and _form(stem).endswith("c") and stem[-1] not in "lsz":
                return stem[:-1]
            return stem + "e" if _form(stem).count("vc") == 1 and _ends_short(stem) else stem
    return word


def _replaced(word: str, suffixes: dict[str, str], measure: int) -> str:
    for length in range(min(_LONGEST_SUFFIX, len(word)), 1, -1):
        stem, suffix = word[:-length], word[-length:]
        if suffix in suffixes:
            fits = _form(stem).count("vc") > measure and (suffix != "ion" or stem.endswith(("s", "t")))
            return stem + suffixes[suffix] if fits else word
    return word
