import datetime
import io

import pytest

from bimo.text.decode import Unreadable
from bimo.text.readers import office
from bimo.text.readers.record import Bad, Text


def test_word_paragraphs_lists_and_tables_in_their_order(read, formats):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_heading("The ink stone", 1)
    document.add_paragraph("It is old.\tVery\nold.")
    for item in ("pine soot", "油烟"):
        document.add_paragraph(item, style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ("a", "b", "c\nd", ""), strict=True):
        cell.text = text
    table.cell(1, 1).add_table(1, 1).cell(0, 0).text = "within"
    document.add_paragraph("")
    document.add_paragraph("End.")
    document.sections[0].header.paragraphs[0].text = "a header"
    document.core_properties.modified = datetime.datetime(2024, 5, 6, 7, 8, 9)
    text = "The ink stone\n\nIt is old.\tVery\nold.\n\npine soot\n油烟\n\na\tb\nc d\twithin\n\nEnd."
    assert read(".docx", formats.saved(document)) == [Text("", text, time="2024-05-06T07:08:09Z")]


def test_word_text_that_the_library_leaves_out(read, formats):
    """Tracked insertions, links, content controls, text boxes and footnotes; nothing of what was deleted."""
    docx = pytest.importorskip("docx")
    from docx.oxml import parse_xml

    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    mc = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    document = docx.Document()
    body = document.element.body
    for xml in (
        f"<w:p {w}><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>one </w:t></w:r><w:ins><w:r><w:t>two</w:t></w:r>"
        "</w:ins><w:del><w:r><w:delText>three</w:delText></w:r></w:del><w:hyperlink><w:r><w:t> four</w:t></w:r>"
        "</w:hyperlink></w:p>",
        f"<w:sdt {w}><w:sdtContent><w:p><w:r><w:t>five</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        f"<w:p {w} {mc}><w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>six</w:t></w:r></w:p>"
        "</w:txbxContent></mc:Choice><mc:Fallback><w:p><w:r><w:t>six</w:t></w:r></w:p></mc:Fallback>"
        "</mc:AlternateContent></w:r></w:p>",
    ):
        body.insert(len(body) - 1, parse_xml(xml))
    from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part

    notes = (
        f'<w:footnotes {w}><w:footnote w:type="separator"><w:p><w:r><w:t>---</w:t></w:r></w:p></w:footnote>'
        "<w:footnote><w:p><w:r><w:t>a note</w:t></w:r></w:p></w:footnote></w:footnotes>"
    )
    part = Part(PackURI("/word/footnotes.xml"), CONTENT_TYPE.WML_FOOTNOTES, notes.encode(), document.part.package)
    document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)
    (record,) = read(".docx", formats.saved(document))
    assert record.text == "one two four\n\nfive\n\nsix\n\na note"


def test_slides_with_tables_groups_and_notes(read, formats):
    pptx = pytest.importorskip("pptx")
    presentation = pptx.Presentation()
    first, second = (presentation.slides.add_slide(presentation.slide_layouts[6]) for _ in range(2))
    group = first.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "in a group\n第二行"
    table = first.shapes.add_table(1, 2, 0, 0, 9, 9).table
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b\nc"
    first.notes_slide.notes_text_frame.text = "say it slowly"
    second.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "second\vline"
    presentation.core_properties.modified = datetime.datetime(2024, 5, 6, 7, 8, 9)
    text = "in a group\n第二行\n\na\tb c\n\nsay it slowly\n\nsecond\nline"
    assert read(".pptx", formats.saved(presentation)) == [Text("", text, time="2024-05-06T07:08:09Z")]


@pytest.fixture
def workbook(formats):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    rows = [[], ["id", "body"], [1, "笔\n墨"], [2.5, None], [], [True, "ink"], [datetime.datetime(2024, 5, 6), "x"]]
    for row in rows:
        book.active.append(row)
    book.create_sheet("空")
    book.create_sheet("more").append(["a", " b\tc", None])
    return formats.saved(book)


def test_sheets_as_tables(read, workbook):
    table = "id\tbody\n1\t笔 墨\n2.5\nTRUE\tink\n2024-05-06\tx\n"
    assert [record[:3] for record in read(".xlsx", workbook)] == [
        ("!Sheet", table, "table"),
        ("!more", "a\tb c\n", "table"),
    ]


def test_a_document_for_each_row(read, workbook):
    *found, second, third = read(".xlsx", workbook, text_column="body")
    time = found[0].time  # of saving it
    assert found == [
        Text("!Sheet:3", "笔\n墨", time=time),
        Bad("Sheet, row 4", "empty"),
        Text("!Sheet:6", "ink", time=time),
        Text("!Sheet:7", "x", time=time),
    ]
    assert len(time) == 20
    assert (second.where, third.where) == ("sheet 空", "sheet more")
    assert second.reason.startswith("in its first row: no column 'body'")


def test_a_template_and_times_for_the_rows_of_a_sheet(read, formats):
    book = pytest.importorskip("openpyxl").Workbook()
    rows = [
        ["标题", "body", "day"],
        ["笔", "一\n二", datetime.date(2024, 5, 6)],
        ["墨", None, None],
        [None, None, "x"],
        [],
    ]
    for row in rows:
        book.active.append(row)
    book.create_sheet("other").append(["标题", "text"])
    found = read(".xlsx", formats.saved(book), template=r"{标题}:\n{body}", time_column="day")
    assert [record[:2] if isinstance(record, Text) else record.where for record in found] == [
        ("!Sheet:2", "笔:\n一\n二"),
        ("!Sheet:3", "墨:\n"),
        ("!Sheet:4", ":\n"),
        "sheet other",
    ]
    assert found[0].time == "2024-05-06" and found[1].time == found[2].time > "2024"
    assert found[1].notes == ("no time: ''",)
    assert "no column 'body' (see --template)" in found[3].reason


def test_rows_that_a_sheet_cannot_have_end_the_reading(read, workbook, monkeypatch):
    monkeypatch.setattr(office, "MOST_ROWS", 4)
    with pytest.raises(Unreadable, match="more than 4 rows"):
        read(".xlsx", workbook)
    monkeypatch.setattr(office, "MOST_ROWS", 99)
    monkeypatch.setattr(office, "MOST_CELLS", 9)
    with pytest.raises(Unreadable, match="9 cells"):
        read(".xlsx", workbook)


def test_an_empty_workbook_is_reported(read, formats):
    book = pytest.importorskip("openpyxl").Workbook()
    assert read(".xlsx", formats.saved(book)) == [Bad("", "empty")]


@pytest.mark.parametrize(("suffix", "library"), [(".docx", "docx"), (".pptx", "pptx"), (".xlsx", "openpyxl")])
def test_without_the_library_the_reason_says_what_to_install(read, monkeypatch, suffix, library):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(Unreadable, match=r"pip install 'bimo\[text\]'"):
        read(suffix, b"PK")


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx"])
def test_a_zip_of_something_else_is_reported(read, suffix, formats):
    with pytest.raises(Unreadable, match="damaged"):
        read(suffix, formats.epub(["<p>a</p>"]))


def test_pictures_are_not_read(read, formats):
    pptx = pytest.importorskip("pptx")
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (5, 7)).save(file, "PNG")
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    slide.shapes.add_picture(file, 0, 0)
    slide.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "text"
    assert read(".pptx", formats.saved(presentation))[0].text == "text"
