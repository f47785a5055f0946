"""Precision and recall on labelled samples: languages, personal data, near duplicates; bimo and peers on the same ones.

Run as ``python -m benchmarks.texts.labels RESULT language|pii|copies COUNT``; peers whose environment is missing are
left out.
"""

from __future__ import annotations

import html
import json
import random
import re
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import planted_copies, planted_pii
from benchmarks.texts.cells import PEERS_PYTHON, ROOT
from benchmarks.texts.packages import debian
from benchmarks.texts.processes import own_process, peers_version, run_tree
from bimo import files

EAST = ("zh", "ja")
# LibreOffice's help: package suffix -> language. The same sentences in every language, translated by people.
HELP = {
    "en-us": "en", "de": "de", "es": "es", "fr": "fr", "it": "it", "pt": "pt", "ru": "ru", "ja": "ja", "ko": "ko",
    "zh-cn": "zh", "zh-tw": "zh",
}  # fmt: skip
PARAGRAPH = re.compile(r'<p\b[^>]*\bclass="paragraph"[^>]*>(.*?)</p>', re.DOTALL)  # not code, not a cell of a table
SHORT, SHORT_EAST = 20, 8  # characters of a short sample
LEAST_WORDS = 6  # of a sentence, where words are set apart
LEAST_EAST = 10  # characters of one, where they are not
OWN_SHARE = 0.75  # of a sample's characters, spaces aside, that are letters of the language's scripts
MOST_ENGLISH = 0.5  # share of the words that the page has in English, too: above it, the page is not translated here
SCRIPTS = {"zh": "CJK", "ja": "CJK|HIRAGANA|KATAKANA", "ko": "HANGUL", "ru": "CYRILLIC"}  # LATIN where not named
EXPLAINED = re.compile(r"[\w, ]{1,30} ?[:：]")  # the name of an argument stands before the sentence
SENTENCE_END = (".", "!", "?", "。", "！", "？")


def paragraphs(suffix: str) -> dict[str, list[str]]:
    """The paragraphs of each page of the help in one language, by the name of the page."""
    folder = debian(f"libreoffice-help-{suffix}") / "usr/share/libreoffice/help"
    (root,) = (path for path in folder.iterdir() if path.name.lower() == suffix)
    found = {}
    for path in sorted(root.rglob("*.html")):
        texts = PARAGRAPH.findall(path.read_text(encoding="utf-8", errors="replace"))
        found[str(path.relative_to(root))] = [
            " ".join(html.unescape(re.sub(r"<[^>]+>", "", one)).split()) for one in texts
        ]
    return found


def is_prose(text: str, language: str) -> bool:
    """Whether a paragraph is a whole sentence in the script of a language, and no formula, path or list of names."""
    east = language in EAST
    long = len(text) >= LEAST_EAST if east else text.count(" ") + 1 >= LEAST_WORDS
    return long and text.endswith(SENTENCE_END) and not EXPLAINED.match(text) and in_script(text, language)


def in_script(text: str, language: str) -> bool:
    """Whether a text begins with a letter of the language's script and nearly all of it is in that script."""
    script = re.compile(SCRIPTS.get(language, "LATIN"))
    own = [bool(one.isalpha() and script.match(unicodedata.name(one, ""))) for one in text if not one.isspace()]
    return bool(own) and own[0] and sum(own) >= OWN_SHARE * len(own)


def is_translated(text: str, english: set[str]) -> bool:
    """Whether few enough words are among those of the English page."""
    words = words_of(text)
    return sum(word in english for word in words) < MOST_ENGLISH * len(words)


def words_of(text: str) -> list[str]:
    """Its words, in lower case."""
    return re.findall(r"[^\W\d_]+", text.lower())


def language_samples(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Paragraphs, and the first words or characters of others.

    A label is the language of the package; none of the programs that are compared has a say in what is taken. Of
    translations only what is prose in the script of its language, and shares few words with the same page in English.
    """
    original = paragraphs("en-us")
    english = {page: {word for text in texts for word in words_of(text)} for page, texts in original.items()}
    found = []
    for suffix, language in HELP.items():
        pages = original if suffix == "en-us" else paragraphs(suffix)
        own: dict[str, dict[str, None]] = {"short": {}, "whole": {}}
        for page, texts in pages.items():
            for text in texts:
                if is_prose(text, language):
                    for form, sample in (("short", beginning(text, language)), ("whole", text)):
                        translated = language == "en" or is_translated(sample, english.get(page, set()))
                        if translated and in_script(sample, language):
                            own[form][sample] = None
        for form, texts_of_form in own.items():
            rng = random.Random(f"{seed} {suffix} {form}")
            chosen = rng.sample(sorted(texts_of_form), min(len(texts_of_form), count))
            found += [{"text": text, "language": language, "form": form} for text in chosen]
    return found


def beginning(text: str, language: str) -> str:
    """The first characters, whole words where they are set apart."""
    if language in EAST:
        return text[:SHORT_EAST]
    return text[:SHORT].rpartition(" ")[0] or text[:SHORT]


def language(count: int) -> dict[str, Any]:
    """Which language each sample is said to be in."""
    from bimo.text.clean.language import announcement, language_of

    samples = language_samples(count)
    texts = [sample["text"] for sample in samples]
    language_of(texts[0])
    began = time.perf_counter()
    answers = {"bimo": [language_of(text)[0] for text in texts]}
    speeds = {"bimo": len(texts) / (time.perf_counter() - began)}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "texts.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        for name, package in (("py3langid", "py3langid"), ("lingua", "lingua-language-detector")):
            if peers_version(package):
                found = own_process("peers.text_languages", path, name, python=PEERS_PYTHON)
                answers[name], speeds[name] = found["answers"], len(texts) / found["seconds"]
    return {
        "finders": {name: _by_language(samples, given) for name, given in answers.items()},
        "texts_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "samples": len(samples),
        "note": announcement(),
    }


def _by_language(samples: Sequence[dict[str, str]], answers: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of each language and form, how many samples there are, how many were told, and how often it was said wrongly."""
    table: dict[str, Counter[str]] = {name: Counter() for name in dict.fromkeys(one["language"] for one in samples)}
    for sample, answer in zip(samples, answers, strict=True):
        own = table[sample["language"]]
        own[sample["form"]] += 1
        own[f"{sample['form']} right"] += answer == sample["language"]
        if answer != sample["language"] and answer in table:
            table[answer]["wrong"] += 1
    return {name: dict(row) for name, row in table.items()}


def pii(count: int) -> dict[str, Any]:
    """What is found of planted personal data."""
    samples = planted_pii.real_samples(count)
    found = {"bimo": planted_pii.measure(samples, "bimo")}
    with tempfile.TemporaryDirectory() as temporary:
        planted, result = Path(temporary) / "samples.jsonl", Path(temporary) / "result.json"
        planted.write_text("".join(json.dumps(asdict(one)) + "\n" for one in samples), encoding="utf-8")
        for name, package in (("presidio", "presidio-analyzer"), ("datatrove", "datatrove")):
            if peers_version(package):
                command = [str(PEERS_PYTHON), str(ROOT / "benchmarks" / "planted_pii.py"), "--read", str(planted)]
                run_tree([*command, "--finder", name, "--json", str(result)], f"pii-{name}")
                found[name] = files.read_json(result)
    return {"finders": found, "samples": len(samples)}


def copies(count: int) -> dict[str, Any]:
    """Which planted copies are found, English and Chinese."""
    found: dict[str, Any] = {}
    for name, make in (("english", planted_copies.english), ("chinese", planted_copies.chinese)):
        samples = make(count)
        texts = [one.text for one in samples]
        began = time.perf_counter()
        clusters = {"bimo": planted_copies.bimo(texts)}
        seconds = {"bimo": round(time.perf_counter() - began, 3)}
        if peers_version("datatrove"):
            began = time.perf_counter()
            clusters["datatrove"] = _datatrove(texts, name)
            seconds["datatrove"] = round(time.perf_counter() - began, 3)
        found[name] = {
            "documents": len(texts),
            "seconds": seconds,
            "finders": {
                finder: planted_copies.score(samples, given, by_character=name == "chinese")
                for finder, given in clusters.items()
            },
        }
    return found


def _datatrove(texts: Sequence[str], language: str) -> list[int]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "in"
        folder.mkdir()
        lines = (json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts))
        (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
        found = own_process("peers.text_minhash", folder, temporary, language, python=PEERS_PYTHON)
    clusters = [-1] * len(texts)
    for number, label in found["clusters"]:
        clusters[number] = label
    return clusters


MEASURES: dict[str, Callable[[int], dict[str, Any]]] = {"language": language, "pii": pii, "copies": copies}

if __name__ == "__main__":
    files.write_json(Path(sys.argv[1]), MEASURES[sys.argv[2]](int(sys.argv[3])))
