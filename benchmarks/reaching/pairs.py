"""Text in English and Chinese: LibreOffice's help and words, descriptions of packages, messages of all programs.

The packages that hold the messages are named in ``programs.txt``: those of Debian 12 (amd64) that have some in
simplified Chinese. They are 2 GB, fetched once with ``apt-get download``.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.reaching.rows import CACHE
from bimo.text.download import apt_get
from bimo.text.labelled_debian import HAN, is_translated, messages
from bimo.tune.rows import read_rows

AT_ONCE = 50  # packages that one call of apt fetches
TOGETHER = 12  # messages of a document: alone they are too short to be one
LONGEST = 600  # characters of a message
KEY = re.compile(r"[(（][&_~]\w[)）]|[_~&](?=\w)")  # the letter that chooses a button


def rows_of(name: str, *, tested: bool) -> list[Mapping[str, Any]]:
    """The rows of a labelled set to measure on, or those to learn from."""
    return [row.values for row in read_rows([name], tested=tested).rows]


def pages(name: str, language: str) -> list[str]:
    """The documents to train on, in both languages: each paragraph, and the same again in the other one."""
    found: dict[str, list[str]] = {}
    for row in rows_of(name, tested=False):
        found.setdefault(row["document"], []).extend((row["en"], row[language], ""))
    return ["\n".join(paragraphs) for paragraphs in found.values()]


def everything() -> Iterator[dict[str, str]]:
    """All there is to learn from, help twice; pairs of the messages in a seeded random order."""
    words, programs = (rows_of(name, tested=False) for name in ("office-words-en-zh", "programs-en-zh"))
    held_out = {row[language].strip() for row in rows_of("office-en-zh", tested=True) for language in ("en", "zh")}
    more = list(_messages(held_out, {(row["en"], row["zh"]) for row in programs}))
    random.Random(0).shuffle(more)
    pairs = [f"{en}\n{zh}\n" for en, zh in [(row["en"], row["zh"]) for row in (*words, *programs)] + more]
    random.Random(0).shuffle(pairs)
    help_pages = pages("office-en-zh", "zh")
    yield from ({"text": page} for page in help_pages)
    yield from ({"text": page + "\n"} for page in help_pages)
    yield from ({"text": page} for page in pages("debian-en-zh", "zh"))
    for begin in range(0, len(pairs), TOGETHER):
        yield {"text": "\n".join(pairs[begin : begin + TOGETHER])}


def _messages(held_out: set[str], known: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Messages of one line that are neither known nor held out, small packages first."""
    seen: set[tuple[str, str]] = set()
    for package in sorted(_packages(), key=lambda path: (path.stat().st_size, path.name)):
        try:
            for _, _, *both in messages(package, "/locale/zh_CN/"):
                en, zh = (KEY.sub("", one).strip() for one in both)
                pair = (en, zh)
                if pair in seen or HAN.search(en) or not is_translated(en, zh, "zh"):
                    continue
                seen.add(pair)
                if pair not in known and not {en, zh} & held_out and len(en) <= LONGEST:
                    yield pair
        except (ValueError, struct.error) as cause:
            print(f"{package.name}: {cause}; what came before is used", flush=True)


def _packages() -> list[Path]:
    folder = CACHE / "programs"
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name.partition("_")[0] for path in folder.glob("*.deb")}
    missing = [name for name in (Path(__file__).parent / "programs.txt").read_text().split() if name not in there]
    for begin in range(0, len(missing), AT_ONCE):
        print(f"fetching packages: {begin} of {len(missing)}", flush=True)
        apt_get(folder, "the packages", "download", *missing[begin : begin + AT_ONCE])
    return list(folder.glob("*.deb"))
