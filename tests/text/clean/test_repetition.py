from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.repetition import (
    PROFILES,
    RULES,
    Config,
    build,
    repeated_bound,
    repeated_share,
    top_bound,
    top_share,
)
from bimo.text.document import Document, Drop
from bimo.text.measures import Measures

DIFFERENT = " ".join(f"word{a}{b} thing{b}{a}" for a in "abcdefgh" for b in "ijklmnop")


def evidence(text: str, profile: str = "gopher", kind: str = "prose") -> str:
    result = build(Config(profile=profile))(Document("a", text, "a.txt", kind=kind))
    return result.evidence if isinstance(result, Drop) else ""


@given(st.text(), st.sampled_from(sorted(PROFILES)))
def test_a_document_is_kept_as_it_is_or_dropped_for_a_known_reason(text: str, profile: str) -> None:
    document = Document("a", text * 3, "a.txt")
    result = build(Config(profile=profile))(document)
    assert result is document or (
        isinstance(result, Drop) and result.reason in {rule.reason for rule in RULES.values()} and result.evidence
    )


WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "e"]), min_size=1, max_size=40)


@given(WORDS, st.integers(2, 6))
def test_shares_are_those_of_counting_by_hand(words: list[str], n: int) -> None:
    m = Measures(" ".join(words))
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    size = sum(len(word) for word in words)
    counts = Counter(grams)
    often = max(counts.values(), default=0)
    top = max((often * sum(len(word) for word in gram) for gram, k in counts.items() if k == often > 1), default=0)
    assert top_share(m, n) == pytest.approx(top / size)
    covered = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(n)}
    assert repeated_share(m, n) == pytest.approx(sum(len(words[i]) for i in covered) / size)


@given(WORDS | st.lists(st.sampled_from("天地玄黄宇宙"), min_size=1, max_size=60), st.booleans())
def test_bounds_are_bounds(words: list[str], long: bool) -> None:
    words = [*words, *(f"x{i}" for i in range(500))] if long else words
    m = Measures(" ".join(words) if words[0].isascii() else "".join(words))
    assert max(top_share(m, n) for n in (2, 3, 4)) <= top_bound(m) + 1e-9
    shares = [repeated_share(m, n) for n in (5, 6, 7, 8, 9, 10)]
    assert shares[0] <= repeated_bound(m) + 1e-9
    assert (np.diff(shares) <= 1e-9).all()  # so the first says enough


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Same.\n" * 4 + DIFFERENT, "max_lines"),
        ("One.\n\nOne.\n\nOne.\n\n" + DIFFERENT.replace(" ", "\n", 20), "max_paragraphs"),
        (f"{DIFFERENT}\n{DIFFERENT}\na\nb\nc\nd", "max_line_characters"),
        (DIFFERENT + " buy now" * 60, "max_top_2gram"),
        ("".join(f"see also page {word * 7} " for word in DIFFERENT.split()), "max_top_3gram"),
        (" ".join(f"this is only a {word}" for word in DIFFERENT.split()), "max_top_2gram"),
        (f"{DIFFERENT[:900]} and {DIFFERENT[:300]}", "max_5grams"),
        ("".join(chr(0x4E00 + i) for i in range(300)) * 2, "max_5grams"),
        ("买买" * 300, "max_top_2gram"),
    ],
)
def test_each_rule_drops_what_it_is_for(text: str, rule: str) -> None:
    assert evidence(text).startswith(f"{rule}: "), evidence(text)


def test_text_that_does_not_repeat_itself_passes() -> None:
    assert evidence(DIFFERENT) == ""
    assert evidence("".join(chr(0x4E00 + i) for i in range(900))) == ""


def test_our_own_limits_let_plays_refrains_and_tables_pass_but_not_what_only_repeats() -> None:
    words = DIFFERENT.split()[:60]
    play = "".join(f"HAMLET.\n{w} of {w[::-1]} and {w.upper()}!\n\nOPHELIA.\nMy lord!\n\n" for w in words)
    assert evidence(play, "gopher") != "" and evidence(play, "own") == ""
    assert evidence("All work and no play makes Jack a dull boy.\n" * 50, "own") != ""
    assert evidence("只工作不玩耍，聪明孩子也变傻。" * 50, "own") != ""


def test_code_is_not_judged() -> None:
    assert evidence("}\n" * 90, kind="prose") != "" and evidence("}\n" * 90, kind="code") == ""
