import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.gutenberg import Config, build
from bimo.text.document import Document

STEP = build(Config())
START = "*** START OF THE PROJECT GUTENBERG EBOOK HAMLET ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK HAMLET ***"
LICENCE_END = "subscribe to our email newsletter to hear about new eBooks."
LINES = st.sampled_from(
    [
        "",
        "To be",
        "Produced by A. Nybody",
        START,
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "End of Project Gutenberg's Hamlet",
        END,
        LICENCE_END,
        "[Transcriber's Note: a]",
        "Transcriber's Notes:",
    ]
)


def clean(text, kind="prose"):
    return STEP(Document("d", text, "s", kind=kind)).text


@given(st.lists(LINES, max_size=12).map("\n".join) | st.text(st.characters(exclude_categories=[])))
def test_twice_is_once_and_nothing_raises(text):
    once = clean(text)
    assert clean(once) == once


@given(st.text(st.characters(max_codepoint=126)))
def test_other_text_is_the_same_object(text):
    document = Document("d", text, "s")
    assert STEP(document) is document


def test_only_the_book_stays():
    book = "HAMLET\n\nProduced by himself is the word.\n\nTo be."
    credits = "Produced by A and\nthe B Team\n\n(Additional editing by C)"
    text = f"The Project Gutenberg eBook of Hamlet\n\n{START}\n\n\n{credits}\n\n\n{book}\n\n\n"
    text += f"End of the Project Gutenberg EBook of Hamlet\n\n{END}\n\nSection 1. Redistributing\n\n{LICENCE_END}\n"
    result = STEP(Document("d", text, "s"))
    assert result.text == book
    assert result.notes == (f"gutenberg: {len(text) - len(result.text)} characters around the book removed",)


def test_a_marker_of_two_lines_and_the_small_print():
    assert clean("x\n*** START OF THIS PROJECT GUTENBERG EBOOK A LONG\nTITLE ***\nbook") == "book"
    assert clean("small print\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\nbook") == "book"


@pytest.mark.parametrize(
    ("parts", "books"),
    [
        (["header", START, "one", END, "licence", LICENCE_END, "more"], ["one", "more"]),
        (["header", START, "one", END, "licence", LICENCE_END, "header", START, "two", END, "licence"], ["one", "two"]),
        (["the end of a book", END, "licence"], ["the end of a book"]),
        (["header", START, "the start of a book"], ["the start of a book"]),
    ],
)
def test_sections_and_several_books(parts, books):
    assert clean("\n\n".join(parts)) == "\n\n\n".join(books)


def test_talk_about_gutenberg_stays():
    for text in ("Project Gutenberg has many books.\n\nThe end of the Project Gutenberg story.", "Johannes Gutenberg"):
        assert clean(text) == text
    assert clean(f"print('''\n{START}\n''')", kind="code") == f"print('''\n{START}\n''')"


def test_transcribers_notes_go():
    text = "A\n\n[Transcriber's Note: two\nlines.]\n\nB.\n\nTRANSCRIBER'S NOTES:\n\np. 3: changed x to y\n"
    assert clean(text) == "A\n\nB."
    assert clean("Transcriber's Note\n\nall there is") == "Transcriber's Note\n\nall there is"
