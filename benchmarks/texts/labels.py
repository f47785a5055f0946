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

# LibreOffice's help: package suffix -> language. The same sentences in every language, translated by people.
HELP = {
    "en-us": "en", "de": "de", "es": "es", "fr": "fr", "it": "it", "pt": "pt", "ru": "ru", "ja": "ja", "ko": "ko",
    "zh-cn": "zh", "zh-tw": "zh",
}  # fmt: skip
PARAGRAPH = re.compile(r"<p\b[^>]*>(.*?)</p>", re.DOTALL)
SHORT, SHORT_EAST = 20, 8  # characters of a short sample
LEAST_SPACES = 4  # of a sentence, where words are set apart
EAST = ("zh", "ja")
NOT_SAID = re.compile("(?:This page|Title) is:|LibreOff")  # the same in every language


def paragraphs(suffix: str) -> set[str]:
    """The paragraphs of the help in one language."""
    found = set()
    for path in sorted((debian(f"libreoffice-help-{suffix}") / "usr").rglob("*.html")):
        for match in PARAGRAPH.findall(path.read_text(encoding="utf-8", errors="replace")):
            text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", match)).split())
            long = len(text) > SHORT_EAST if suffix.partition("-")[0] in EAST else text.count(" ") >= LEAST_SPACES
            if long and sum(map(str.isalpha, text)) > len(text) / 2 and not NOT_SAID.match(text):
                found.add(text)
    return found


def language_samples(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Paragraphs, and the first characters of others; what was left in English is not taken for a translation."""
    english = paragraphs("en-us")
    found = []
    for suffix, language in HELP.items():
        rng = random.Random(f"{seed} {suffix}")
        own = sorted(english if suffix == "en-us" else paragraphs(suffix) - english)
        chosen = rng.sample(own, min(len(own), 2 * count))
        for place, text in enumerate(chosen):
            form = "short" if place % 2 else "whole"
            cut = text[:SHORT_EAST] if language in EAST else text[:SHORT].rpartition(" ")[0] or text[:SHORT]
            found.append({"text": cut if form == "short" else text, "language": language, "form": form})
    return found


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
