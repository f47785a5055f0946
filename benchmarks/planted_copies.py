"""Plant edited copies of real documents among them, and measure which are found and what is taken for a copy.

    python -m benchmarks.planted_copies            # recall by kind of edit and by similarity, precision

English: articles; Chinese: sections of 400 characters of a novel. A copy is in capitals, with other punctuation, in
short lines, with 1, 2 or 10% of its words (characters) replaced, with its first 20th cut off or a 20th added. What
counts is the true similarity, Jaccard's of the sets of 5 words (Chinese: characters) in a row: above 0.85 all should
be found, below 0.6 none.
"""

from __future__ import annotations

import argparse
import random
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SHINGLE = 5
BINS = ((0.85, 1.01), (0.75, 0.85), (0.6, 0.75), (0.0, 0.6))
AROUND = 50  # documents around, for every copy of a kind; with 200 copies these are all articles
ALIKE = 0.6  # two documents of one cluster that are less similar are a mistake
MOST_COMPARED = 200  # documents of one cluster
LEAST_WORDS, SECTION = 40, 400
CHINESE_STOPS = re.compile("[，。：；、！？“”]")  # what the edits of punctuation touch

Edit = Callable[[str, random.Random, Sequence[str]], str]


@dataclass(frozen=True)
class Sample:
    """A document; ``original`` is the number of the one that it is a copy of, or -1, and ``edit`` how it was made."""

    text: str
    original: int
    edit: str


def replaced(share: float, *, by_character: bool) -> Edit:
    """An edit that puts random words, or Chinese characters, in the place of some."""

    def edit(text: str, rng: random.Random, words: Sequence[str]) -> str:
        units = list(text) if by_character else re.split(r"(\s+)", text)
        places = [
            i for i, one in enumerate(units) if ("一" <= one <= "鿿" if by_character else one and not one.isspace())
        ]
        for place in rng.sample(places, max(1, round(share * len(places)))):
            units[place] = rng.choice(words)
        return "".join(units)

    return edit


def _punctuation(text: str, rng: random.Random, words: Sequence[str]) -> str:
    return re.sub(r"[^\w\s'’-]", lambda found: rng.choice(["", " ", found[0] + " "]), text)


def _chinese_punctuation(text: str, rng: random.Random, words: Sequence[str]) -> str:
    return CHINESE_STOPS.sub(lambda found: rng.choice(["", found[0], "\n"]), text)


def _added(text: str, rng: random.Random, words: Sequence[str]) -> str:
    return text + " " + " ".join(rng.sample(words, max(3, len(text.split()) // 20)))


ENGLISH: dict[str, Edit] = {
    "capitals": lambda text, rng, words: text.upper(),
    "punctuation": _punctuation,
    "wrapped": lambda text, rng, words: "\n".join(textwrap.wrap(text, 72)),
    "1% replaced": replaced(0.01, by_character=False),
    "2% replaced": replaced(0.02, by_character=False),
    "10% replaced": replaced(0.10, by_character=False),
    "5% cut": lambda text, rng, words: " ".join(text.split(" ")[max(1, len(text.split(" ")) // 20) :]),
    "5% added": _added,
}
CHINESE: dict[str, Edit] = {
    "punctuation": _chinese_punctuation,
    "wrapped": lambda text, rng, words: "\n".join(text[i : i + 30] for i in range(0, len(text), 30)),
    "1% replaced": replaced(0.01, by_character=True),
    "2% replaced": replaced(0.02, by_character=True),
    "10% replaced": replaced(0.10, by_character=True),
    "5% cut": lambda text, rng, words: text[len(text) // 20 :],
    "5% added": lambda text, rng, words: text + "".join(rng.sample(words, max(1, len(text) // 20))),
}


def english(count: int, seed: int = 0) -> list[Sample]:
    """Articles of ``wiki-en``, and ``count`` copies of each kind."""
    from bimo.text.source import open_source

    texts = [document.text for document in open_source("wiki-en")][: AROUND * count]
    long = [number for number, text in enumerate(texts) if len(text.split()) >= LEAST_WORDS]
    return _planted(texts, long, [word for text in texts[:500] for word in text.split()], ENGLISH, count, seed)


def chinese(count: int, seed: int = 0) -> list[Sample]:
    """Sections of ``sanguo``, and ``count`` copies of each kind."""
    from bimo.text.source import open_source

    chapters = [document.text for document in open_source("sanguo")]
    texts = [text[at : at + SECTION] for text in chapters for at in range(0, len(text) - SECTION // 2, SECTION)]
    texts = texts[: AROUND * count]
    characters = [one for text in texts[:50] for one in text if "一" <= one <= "鿿"]
    return _planted(texts, list(range(len(texts))), characters, CHINESE, count, seed)


def _planted(
    texts: list[str], usable: list[int], words: list[str], edits: dict[str, Edit], count: int, seed: int
) -> list[Sample]:
    rng = random.Random(seed)
    chosen = rng.sample(usable, min(len(usable), count * len(edits)))
    names = list(edits)
    copies = [
        Sample(edits[name](texts[number], rng, words), number, name)
        for place, number in enumerate(chosen)
        for name in [names[place % len(names)]]
    ]
    return [Sample(text, -1, "") for text in texts] + copies


def shingles(text: str, *, by_character: bool) -> set[tuple[str, ...]]:
    """The sets of 5 words in a row, that similarity is defined by; a Chinese character is a word."""
    words = re.findall(r"[一-鿿]|[^\W_一-鿿]+" if by_character else r"[^\W_]+", text.lower())
    return {tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


def score(samples: Sequence[Sample], cluster: Sequence[int], *, by_character: bool) -> dict[str, Any]:
    """How many copies are in the cluster of their original, and how many clustered documents have no like there.

    Args:
        cluster: a number for each document, -1 for one that is alone.
    """
    sets: dict[int, set[tuple[str, ...]]] = {}

    def similarity(a: int, b: int) -> float:
        for number in (a, b):
            if number not in sets:
                sets[number] = shingles(samples[number].text, by_character=by_character)
        return len(sets[a] & sets[b]) / len(sets[a] | sets[b])

    by_bin: dict[str, list[int]] = {f"{low:g}": [0, 0] for low, _ in BINS}
    by_edit: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for number, sample in enumerate(samples):
        if sample.original >= 0:
            true = similarity(number, sample.original)
            found = cluster[number] >= 0 and cluster[number] == cluster[sample.original]
            low = next(low for low, high in BINS if low <= true < high)
            for counts in (by_bin[f"{low:g}"], by_edit[sample.edit]):
                counts[0] += found
                counts[1] += 1
    members: dict[int, list[int]] = defaultdict(list)
    for number, label in enumerate(cluster):
        if label >= 0:
            members[label].append(number)
    right = wrong = 0
    for some in members.values():
        for number in some[:MOST_COMPARED]:
            like = any(other != number and similarity(number, other) >= ALIKE for other in some[:MOST_COMPARED])
            right, wrong = right + like, wrong + (not like)
    return {"by_similarity": by_bin, "by_edit": dict(by_edit), "clustered": right + wrong, "unlike": wrong}


def bimo(texts: Sequence[str]) -> list[int]:
    """The cluster of each text."""
    import numpy as np

    from bimo.text.duplicates import find_duplicates
    from bimo.text.signatures import signatures

    signed = signatures(texts)
    sizes = np.array([len(text.encode("utf-8")) for text in texts])
    found = find_duplicates(signed.exact, iter(signed.bands.T), signed.check, np.zeros(len(texts)), sizes)
    clusters: list[int] = found.cluster.tolist()
    return clusters


def main() -> None:
    """Print what bimo finds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="copies of each kind")
    count = parser.parse_args().count
    for name, samples in (("English", english(count)), ("Chinese", chinese(count))):
        found = score(samples, bimo([one.text for one in samples]), by_character=name == "Chinese")
        print(f"{name}: {found['clustered']} documents in clusters, {found['unlike']} of them unlike all others there")
        for title, counts in (found["by_similarity"] | found["by_edit"]).items():
            print(f"  {title:14} {counts[0]:5} of {counts[1]:5} found")


if __name__ == "__main__":
    main()
