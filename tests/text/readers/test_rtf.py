import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.decode import CutShort, Unreadable
from bimo.text.readers.record import Bad

FONTS = (
    r"{\fonttbl{\f0\fnil\fcharset134 \'cb\'ce\'cc\'e5;}{\f1\fnil\fcharset0 Calibri;}{\f2\fcharset136 MingLiU;}"
    r"{\f3\fcharset204 Arial;}{\f4\fcharset128 MS Mincho;}}"
)


@pytest.fixture
def text(read):
    def text(body, head=r"\ansi\ansicpg1252\deff1" + FONTS):
        (record,) = read(".rtf", ("{\\rtf1" + head + body + "}").encode("latin-1"))
        return record.text

    return text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (r"\pard One {\b bold} word.\par Two\line lines.\par", "One bold word.\n\nTwo\nlines."),
        (r"\f0\'c4\'e3\'ba\'c3\f1 , world", "你好, world"),
        (r"\f2\'a5\'5c\'af\'e0 \'a5\\", "功能 功"),  # the second byte is a backslash
        ("\\f0\\'c4\r\n\\'e3\\'81\\'30\\'81\\'34", "你\x84"),
        (r"\f3\'cf\'f0\'e8\'e2\'e5\'f2", "Привет"),
        (r"\f4\'93\'fa\'96\{", "日本"),  # and a brace
        (r"caf\'e9 \'93quoted\'94 \emdash\~\_x", "café “quoted” —\xa0-x"),
        (r"\uc1\u20320?\u22909\'3f \uc0\u26085\u26412 \uc2\u-10179\'81\'40\u-8704xx!", "你好 日本😀!"),
        (r"\loch\f1\hich\f1\dbch\f0\'c4\'e3\loch caf\'e9", "你café"),
        (r"{\f0 \'c4\'e3}\'e9", "你é"),  # a font ends with its group
        (
            r"shown{\v hidden}\v0{\deleted gone}{\*\unknown no}{\field{\*\fldinst HYPERLINK}{\fldrslt link}}",
            "shownlink",
        ),
        (r"{\header Page}{\info{\title No}}{\pict\bin5 {{{{{ffd8}a{\pict ffd8}", "a"),
        (r"Text{\footnote\pard A note.\par}.\par More.", "Text.\n\nMore.\n\nA note."),
        (r"{\pard\ls1{\listtext 1.\tab}one\par}{\pard\ls1 two\par}\pard three", "one\ntwo\n\nthree"),
        (r"a\par\trowd\pard\intbl b\par c\cell d\cell\row\pard\intbl e\cell\cell\row\pard f", "a\n\nb c\td\ne\t\n\nf"),
        (r"\{braces\} and \\", "{braces} and \\"),
        (r"a\u8212\par b", "a—\n\nb"),  # a writer without substitutes
    ],
)
def test_texts(text, body, expected):
    assert text(body) == expected


def test_western_letters_in_a_chinese_document(text):
    head = r"\ansi\ansicpg936\deff0" + FONTS
    assert text(r"\'c4\'e3\f1  caf\'e9t\'e9 \f9\'ba\'c3", head) == "你 cafété 好"
    assert text(r"\'c4\'e3", r"\ansi\ansicpg936") == "你"
    assert text(r"\'cf", r"\ansi\ansicpg1251") == "П"
    assert text(r"\'8e", r"\mac") == "é"
    assert text(r"\'e9", r"\ansi\ansicpg99999") == "é"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\{}"), min_size=1))
def test_whatever_is_written_in_unicode_is_read(read, words):
    units = words.encode("utf-16-le")
    body = "".join(f"\\u{int.from_bytes(units[at : at + 2], 'little', signed=True)}?" for at in range(0, len(units), 2))
    found = read(".rtf", ("{\\rtf1\\ansi x" + body + "x}").encode())
    assert [record.text for record in found] == [f"x{words}x"]


def test_what_is_none_or_damaged(read):
    for data in (b"", b"Dear Sir", b"{\\rt", b"\xd0\xcf\x11\xe0"):
        with pytest.raises(Unreadable, match="no RTF file"):
            read(".rtf", data)
    with pytest.raises(Unreadable, match="more than 10,000 groups"):
        read(".rtf", b"{\\rtf1 a" + b"{" * 20_000)


def test_what_precedes_the_end_of_a_cut_file_is_kept(tmp_path):
    from bimo.text.source import open_source

    (tmp_path / "a.rtf").write_bytes(b"{\\rtf1 one\\par two {\\b thr")
    source = open_source(tmp_path)
    (document,) = source
    assert document.text == "one\n\ntwo thr" and document.notes == ("the rest is missing",)
    assert "a group is never closed" in source.skipped[0].reason


def test_an_empty_document_says_so(read):
    (record,) = read(".rtf", b"{\\rtf1\\ansi\\par}")
    assert not isinstance(record, Bad) and record.text == ""
    with pytest.raises(CutShort):
        read(".rtf", b"{\\rtf1")
