import pytest

from bimo.text.decode import Unreadable
from bimo.text.readers import pdf as reader
from bimo.text.readers import sections
from bimo.text.readers.record import Bad

pytest.importorskip("pypdfium2")


def test_pages_are_parted_by_a_form_feed_and_words_stay_hyphenated(read, formats):
    file = formats.pdf([["The ink-", "stone is old."], [], ["它很旧。", "真的。"]])
    (record,) = read(".pdf", file)
    assert record.text == "The ink-\nstone is old.\n\f它很旧。\n真的。"
    assert record.time == "2024-05-06T07:08:09Z"
    assert record.key == ""


def test_a_scanned_page_is_reported(read, formats):
    text, *bad = sorted(
        read(".pdf", formats.pdf([["one"], None, ["two"], None])), key=lambda record: isinstance(record, Bad)
    )
    assert text.text == "one\n\ftwo"
    assert bad == [Bad("page 2", reader.NO_TEXT_LAYER), Bad("page 4", reader.NO_TEXT_LAYER)]
    assert read(".pdf", formats.pdf([None])) == [Bad("page 1", reader.NO_TEXT_LAYER)]


def test_a_long_file_is_several_documents(read, formats, monkeypatch):
    monkeypatch.setattr(sections, "SECTION_BYTES", 12)
    records = read(".pdf", formats.pdf([["one two"], ["three"], ["four"]]))
    assert [record.key for record in records] == ["#0", "#1"]
    assert "".join(record.text for record in records) == "one two\n\fthree\n\ffour"
    assert {record.time for record in records} == {"2024-05-06T07:08:09Z"}


def test_protected_and_damaged_files(read, formats):
    key = "/ID[<{0}><{0}>]/Encrypt<</Filter/{1}/V 1/R 2/O<{2}>/U<{2}>/P -4>>"
    with pytest.raises(Unreadable, match="protected by a password: save a copy without one"):
        read(".pdf", formats.pdf([["x"]], key.format("01" * 16, "Standard", "11" * 32).encode()))
    with pytest.raises(Unreadable, match="protected in a way that cannot be undone"):
        read(".pdf", formats.pdf([["x"]], key.format("01" * 16, "Mine", "11" * 32).encode()))
    for data in (b"", b"%PDF-1.7\n", b"text"):
        with pytest.raises(Unreadable, match="damaged PDF file, or none"):
            read(".pdf", data)


def test_times_that_are_no_times(read, formats):
    for written, expected in (
        (b"D:2024", "2024-01-01T00:00:00Z"),
        (b"D:20240506Z", "2024-05-06T00:00:00Z"),
        (b"D:20241306", ""),
        (b"yesterday", ""),
    ):
        data = formats.pdf([["x"]]).replace(b"D:20240506150809+08'00'", written.ljust(23))
        assert read(".pdf", data)[0].time == expected


def test_without_the_library_the_reason_says_what_to_install(read, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pypdfium2", None)
    with pytest.raises(Unreadable, match=r"pip install 'bimo\[text\]'"):
        read(".pdf", b"%PDF")
