import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.pages import Config, build
from bimo.text.document import Document

STEP = build(Config())
PIECES = """
\f
\f3
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


RAIN = """Chapter 1
The rain had fallen for weeks over the valley and the far-
mers were afraid that nothing would be left of the
harvest.
\f
Then they went to the river, which nobody had seen so
high. It was an old custom to go there in the evening, when
Lisbeth rang the bell on the hill above them. They
\f
stood and looked, and some of them spoke of the year in
which the bridge was carried off.
Nobody slept.
\f
Chapter 2
In the morning it was over."""
PAGES = RAIN.split("\n\f\n")
JOINED = """Chapter 1
The rain had fallen for weeks over the valley and the farmers were afraid that nothing would be left of the harvest.

Then they went to the river, which nobody had seen so high. It was an old custom to go there in the evening, when \
Lisbeth rang the bell on the hill above them. They stood and looked, and some of them spoke of the year in which \
the bridge was carried off.
Nobody slept.

Chapter 2
In the morning it was over."""


@pytest.mark.parametrize(
    "frame", ["{page}\n{number}", "THE RAIN\n\n{page}", "{number} THE RAIN\n{page}\n(c) A. Smith", "{page}"]
)
def test_pages_become_one_text(frame):
    pages = [frame.format(page=page, number=number) for number, page in enumerate(PAGES, start=99)]
    result = STEP(Document("d", "\n\f".join(pages), "s"))
    assert result.text == JOINED
    assert result.notes[0].startswith("pages: ")


def test_heads_of_single_chapters_count_the_pages():
    heads = ["Chapter 1 5", "Chapter 1 6", "Chapter 2: The sun 7", "Index 8"]
    texts = ["It was 12.", "It struck 30.", "They came at 7.", "All slept."]
    pages = [f"{head}\n{text}\n" for head, text in zip(heads, texts, strict=True)]
    assert clean("\f".join(pages)) == "\n\n".join(texts)


def test_pages_of_chinese_are_joined_without_spaces():
    pages = [
        "雨已经下了好几个星期了，农民们都很担心，怕今年的\n收成会全部毁掉，于是他们一起走到村子外面的",
        "河边去看，谁也没有见过那么高的水。",
    ]
    assert clean("\f".join(pages)) == "".join(pages).replace("\n", "")


def test_pages_of_verse_keep_their_lines():
    verse = "Shall I compare thee to a summer's day of June?\nThou art more lovely and more temperate than it:\n"
    assert clean(f"{verse}\f{verse}") == f"{verse}\n{verse}".strip("\n")
    assert build(Config(join=False))(Document("d", "\f".join(PAGES), "s")).text == "\n\n".join(PAGES).replace(
        "They\n\nstood", "They\nstood"
    )
