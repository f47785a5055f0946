import pytest

from bimo.text.decode import Unreadable
from bimo.text.readers import sections
from bimo.text.readers.record import Bad, Text


def test_chapters_in_the_order_of_the_spine_are_one_document(read, formats):
    chapters = ["<h1>One</h1><p>ink<br/>stone</p>", "<nav><ul><li>第二章</li></ul></nav><a id='x'/><p>和</p>"]
    assert read(".epub", formats.epub(chapters)) == [
        Text("", "One\n\nink\nstone\n\n  • 第二章\n\n和", time="1880-01-02")
    ]


def test_a_long_book_is_several(read, formats, monkeypatch):
    monkeypatch.setattr(sections, "SECTION_BYTES", 10)
    records = read(".epub", formats.epub(["<p>one</p>", "<p>two</p>", "<p>three</p>"]))
    assert [record[:2] for record in records] == [("#0", "one\n\ntwo\n\n"), ("#1", "three")]


def test_the_table_of_contents_and_pictures_are_left_out(read, formats):
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
        '<item id="a" href="c%200.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        '<item id="b" href="c%201.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="c" href="a.svg" media-type="image/svg+xml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/><itemref idref="c"/><itemref idref="d"/></spine></package>'
    )
    book = formats.epub(["<p>contents</p>", "<p>text</p>"], **{"OEBPS_a.opf": package})
    assert read(".epub", book) == [Bad("chapter 4", "named in the spine, but not in the manifest"), Text("", "text")]


def test_missing_and_encrypted_chapters_are_reported(read, formats):
    encryption = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData><CipherData>'
        '<CipherReference URI="OEBPS/c%201.xhtml"/></CipherData></EncryptedData></encryption>'
    )
    members = {"OEBPS_c 0.xhtml": None, "META-INF_encryption.xml": encryption}
    missing = Bad("OEBPS/c 0.xhtml", "named in the book, but not in the file")
    encrypted = Bad("OEBPS/c 1.xhtml", "encrypted (DRM)")
    assert read(".epub", formats.epub(["<p>a</p>", "<p>b</p>"], **members)) == [missing, encrypted]
    assert read(".epub", formats.epub(["<p>a</p>", "<p>b</p>", "<p>c</p>"], **members))[2].text == "c"


def test_what_is_no_book(read, formats):
    for members, reason in (
        ({"META-INF_container.xml": None}, "no META-INF/container.xml in it"),
        ({"META-INF_container.xml": "<container/>"}, "names no package"),
        ({"OEBPS_a.opf": "<package"}, "OEBPS/a.opf: unclosed token"),
        ({"OEBPS_a.opf": "<package/>"}, "its spine is empty"),
    ):
        with pytest.raises(Unreadable, match=reason):
            read(".epub", formats.epub(["<p>a</p>"], **members))


def test_entities_cannot_blow_up(read, formats):
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    package = f'<!DOCTYPE package [<!ENTITY e0 "ha">{entities}]><package>&e12;</package>'
    with pytest.raises(Unreadable, match="damaged EPUB book"):
        read(".epub", formats.epub(["<p>a</p>"], **{"OEBPS_a.opf": package}))
