import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.readers import sections as module
from bimo.text.readers.record import Bad, Text
from bimo.text.readers.sections import apart, sections

PIECES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6)


@given(PIECES)
def test_sections_put_together_are_the_pieces(pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SECTION_BYTES", 11)
        records = list(sections(pieces, "web", "2024"))
    assert "".join(record.text for record in records) == "".join(pieces)
    assert all(len(record.text.encode()) <= 11 for record in records)
    numbered = [f"#{number}" for number in range(len(records))]
    assert [record.key for record in records] == (numbered if len(records) > 1 else [""])
    assert {record[2:4] for record in records} == {("web", "2024")}


def test_what_is_bad_passes_through():
    bad = Bad("page 2", "a scan")
    assert list(sections(["墨", bad, "ink"])) == [bad, Text("", "墨ink")]
    assert list(sections([bad])) == [bad]
    assert list(sections([])) == [Text("", "")]


def test_blank_pieces_are_not_set_apart():
    bad = Bad("page 2", "a scan")
    assert list(apart(["", "a", bad, " \n", "b"], "\n\f")) == ["a", bad, "\n\fb"]
