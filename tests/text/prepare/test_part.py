"""Excerpts of documents."""

import re

import pytest

from bimo.text.prepare import part


@pytest.mark.parametrize("secret", ["jane.doe@example-mail.com", "13812345678", "jane@b.org 13812345678"])
def test_an_excerpt_does_not_hold_half_of_personal_data(secret):
    begin, size = 700, part.EXAMPLE_CHARACTERS
    for edge in (begin, begin + size):
        for place in range(edge - len(secret) - 1, edge + 2):
            text = "a " * (place // 2) + " " * (place % 2) + secret + " b" * 2_000
            shown = part._Examples()._excerpt(text, begin)
            assert set(re.sub(r"<[A-Z]+>", "", shown)) <= {"a", "b", " "}, (place, shown[:30], shown[-30:])
            assert abs(len(shown) - size) < 30
            assert shown.count("<") == shown.count(">")
