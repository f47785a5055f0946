import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.page_marks import Config, build
from bimo.text.document import Document

STEP = build(Config())
PIECES = """

1
2
- 3 -
Page 4 of 9
第5页
6
THE WHALE
7 THE WHALE
and so the sentence goes on
It ended.
雨下了一整天，农民们都很高兴，因为
春晓"""
LINES = st.sampled_from(PIECES.split("\n"))


def clean(text, kind="prose"):
    return STEP(Document("d", text, "s", kind=kind)).text


@given(st.lists(LINES, max_size=30).map("\n".join) | st.text(st.characters(exclude_categories=[])))
def test_twice_is_once_and_nothing_raises(text):
    once = STEP(Document("d", text, "s"))
    assert STEP(once) is once


@given(st.text(st.sampled_from("abc. \n")))
def test_text_without_numbers_is_the_same_object(text):
    document = Document("d", text, "s")
    assert STEP(document) is document


def book(mark, first=7):
    pages = ["It was a long way to", "the sea, and nobody knew the", "road. Then they came.", "The end of it was"]
    parts = [pages[0]]
    for number, page in enumerate(pages[1:], start=first):
        parts += [mark.format(number), page]
    return parts, pages


@pytest.mark.parametrize(
    "mark",
    [
        "{}",
        "- {} -",
        "Page {} of 99",
        "[{}]",
        "{} THE SEA",
        "THE SEA    {}",
        "THE SEA\n\n{}",
        "{}\n\nTHE SEA",
        "第{}页",
    ],
)
def test_page_numbers_and_running_heads_go(mark):
    parts, pages = book(mark)
    assert clean("\n\n".join(parts)) == "\n".join(pages[:3]) + "\n\n" + pages[3]


def test_a_number_in_a_sentence_of_chinese():
    parts = ["雨下了一整天，农民们都很高兴，因为今", "年一直没有下雨，田里的庄稼都快要干死了，现", "在好了。", "完"]
    text = "\n\n{}\n\n".join(parts).format(1, 2, 3)
    assert clean(text) == "\n".join(parts[:3]) + "\n\n" + parts[3]


@pytest.mark.parametrize(
    "text",
    [
        "1\n\nShall I compare thee to a summer's day?\n\n2\n\nthou art more lovely and more temperate:\n\n3\n\nrough",
        "1\napple\n2\npear\n3\nplum\n4\nfig",
        "1\n苹果\n2\n香蕉\n3\n梨",
        "Chapter 1\n\nIt was night.\n\nChapter 2\n\nit was day.\n\nChapter 3\n\nit was noon.",
        "Bones, grafting of, 12\n  repair of, 4\nBrain, injuries to the, 3\n  repair of, 5\n  repair of, 6\n  use of",
        "He lost it in the year\n1899\nand never again after\n1912\nand that was all till\n1950\nand on",
    ],
)
def test_other_numbers_stay(text):
    assert clean(text) == text


def test_pages_without_a_number_do_not_end_the_count():
    parts, _ = book("{}")
    assert "8" in "".join(parts)
    text = "\n".join(parts).replace("\n8\n", "\n\n")
    assert clean(text) == text  # two are too few
    more = f"{text}\n10\nand yet there was more to say\n11\nabout it"
    assert not any(character.isdigit() for character in clean(more))
