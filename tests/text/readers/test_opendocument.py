import pytest

from bimo.text.decode import Unreadable


@pytest.fixture
def text(read, formats):
    def text(body, **namespaces):
        (record,) = read(".odt", formats.odt(body, **namespaces))
        return record.text

    return text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<text:h>Title</text:h><text:p>One\n  <text:span>bold</text:span> word.</text:p>", "Title\n\nOne bold word."),
        ('<text:p>a<text:tab/>b<text:line-break/>c<text:s text:c="3"/>d<text:s/>e</text:p>', "a\tb\nc   d e"),
        (
            "<text:list><text:list-item><text:p>一</text:p><text:list><text:list-item><text:p>二</text:p>"
            "</text:list-item></text:list></text:list-item></text:list><text:p>三</text:p>",
            "一\n二\n\n三",
        ),
        (
            "<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>a</text:p><text:p>b"
            "</text:p></table:table-cell><table:table-cell/></table:table-row></table:table-header-rows>"
            "<table:table-row><table:table-cell><text:p>c</text:p></table:table-cell><table:table-cell><text:p>d"
            "</text:p></table:table-cell></table:table-row></table:table>",
            "a b\t\nc\td",
        ),
        (
            "<text:p>Text<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>A note.</text:p>"
            "</text:note-body></text:note>.</text:p><text:p>More.</text:p>",
            "Text.\n\nMore.\n\nA note.",
        ),
        (
            "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:p>kept<office:annotation><text:p>"
            "who says?</text:p></office:annotation> <text:ruby><text:ruby-base>漢字</text:ruby-base><text:ruby-text>"
            "かんじ</text:ruby-text></text:ruby></text:p>",
            "kept 漢字",
        ),
        ("<text:p>a<draw:frame><draw:text-box><text:p>box</text:p></draw:text-box></draw:frame></text:p>", "a\nbox"),
        ("<text:section><text:p>in a section</text:p></text:section>", "in a section"),
    ],
)
def test_texts(text, body, expected):
    assert text(body) == expected


def test_time_and_length(read, formats):
    (record,) = read(".odt", formats.odt("<text:p>a</text:p>"))
    assert record.time == "2024-05-06T07:08:09Z"
    parts = read(".odt", formats.odt(f"<text:p>{'word ' * 300_000}</text:p>" * 4))
    assert [record.key for record in parts] == ["#0", "#1"]


def test_what_is_none_or_locked(read, formats, make_sample):
    with pytest.raises(Unreadable, match="protected by a password"):
        read(".odt", formats.odt("<text:p>?</text:p>", manifest="<encryption-data/>"))
    with pytest.raises(Unreadable, match="no content.xml in it"):
        read(".odt", make_sample(".epub", ("a",)))
    with pytest.raises(Unreadable, match=r"content\.xml: "):
        read(".odt", formats.odt("<text:p>never closed"))
    with pytest.raises(Unreadable, match="another kind of content"):
        read(".odt", formats.odt("", office="other"))
    bomb = "".join(f"<text:s text:c='9{'9' * 20}'/>" for _ in range(9))
    (record,) = read(".odt", formats.odt(f"<text:p>a{bomb}b</text:p>"))
    assert len(record.text) < 10_000
