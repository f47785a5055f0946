import csv
import io
import json
from pathlib import PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.text.decode import Unreadable
from bimo.text.readers import READERS, SHORT_FORMS, sections, suffixes_of
from bimo.text.readers import records as record_readers
from bimo.text.readers.record import Bad, Options

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"))


def read(suffix, data, **options):
    data = data.encode("utf-8") if isinstance(data, str) else data
    records = READERS[suffix](io.BytesIO(data), Options(**{"encoding": "utf-8", **options}))
    return [record if isinstance(record, Bad) else record[:2] for record in records]


@given(PLAIN)
def test_sections_of_a_text_put_together_are_the_text(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SECTION_BYTES", 11)
        records = read(".txt", text)
    assert "".join(part for _, part in records) == text
    assert all(len(part.encode("utf-8")) <= 11 for _, part in records)
    fits = len(text.encode("utf-8")) <= 11
    assert [key for key, _ in records] == ([""] if fits else [f"#{number}" for number in range(len(records))])


def test_a_large_text_is_cut_at_blank_lines(monkeypatch):
    monkeypatch.setattr(sections, "SECTION_BYTES", 16)
    assert read(".md", "one two\n\nthree 中\n\nfour") == [("#0", "one two\n\n"), ("#1", "three 中\n\nfour")]


@given(st.lists(PLAIN.map(lambda text: text or "x"), min_size=1, max_size=5))
def test_every_record_format_gives_back_its_texts(texts):
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    lines = "\n".join(json.dumps(row) for row in rows)
    assert read(".jsonl", lines) == [(f":{number + 1}", text) for number, text in enumerate(texts)]
    expected = [(f":{number}", text) for number, text in enumerate(texts)]
    assert read(".json", json.dumps(rows, indent=2)) == expected
    assert read(".json", json.dumps(texts)) == expected
    for suffix, dialect in ((".csv", "excel"), (".tsv", "excel-tab")):
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, ["id", "text"], dialect=dialect)
        writer.writeheader()
        writer.writerows(rows)
        assert [text for _, text in read(suffix, table.getvalue())] == texts


@given(st.lists(PLAIN, min_size=1, max_size=5))
def test_a_json_array_is_read_in_chunks_of_any_size(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bimo.text.decode.CHUNK", 3)
        assert [text for _, text in read(".json", " \n" + json.dumps(texts))] == texts


def test_broken_lines_are_left_out_and_say_where():
    lines = (
        '{"text": "a"}\n\n{"text": \n[1]\n{"txt": "b"}\n{"text": 7}\n"plain\\r\\n"\n' + "[" * 5000 + '\n{"text": "z"}'
    )
    assert read(".jsonl", lines) == [
        (":1", "a"),
        Bad("line 3", "not JSON"),
        Bad("line 4", "the text is of type list, not a string"),
        Bad("line 5", "no column 'text' (see --text-column). Did you mean 'txt'?"),
        Bad("line 6", "the text is of type int, not a string"),
        (":7", "plain\n"),
        Bad("line 8", "not JSON"),
        (":9", "z"),
    ]


def test_records_that_are_too_large_are_left_out(monkeypatch):
    monkeypatch.setattr(record_readers, "RECORD_CHARACTERS", 20)
    monkeypatch.setattr(record_readers, "CSV_CHARACTERS", 20)
    monkeypatch.setattr("bimo.text.decode.CHUNK", 7)
    long = "x" * 30
    assert read(".jsonl", f'"{long}"\n"short"') == [Bad("line 1", "larger than 64 MB"), (":2", "short")]
    with pytest.raises(Unreadable, match="larger than 64 MB"):
        read(".json", f'["{long}", "short"]')
    with pytest.raises(Unreadable, match="larger than 64 MB"):
        read(".csv", f"text\n{long}\n")
    assert read(".csv", 'text\n"a\n' + "bcdefghi\n" * 3) == [
        Bad("row 1", "not a row: a field larger than 64 MB, or a quote that is never closed"),
        *((f":{number}", "bcdefghi") for number in (2, 3, 4)),
    ]
    monkeypatch.setattr(record_readers, "ROW_LINES", 2)
    found = read(".csv", 'text\n"a\nb\nc\nd\n')
    assert found[0].reason.endswith("more than 2 lines, or a quote that is never closed")
    assert found[1:] == [(":2", "b"), (":3", "c"), (":4", "d")]


def test_json_that_is_no_array_or_breaks_off():
    for text in ('{"text": "a"}', "", "7"):
        with pytest.raises(Unreadable, match="not a JSON array"):
            read(".json", text)
    assert read(".json", " [ ]") == []
    for text in ('["a", "b"', '["a" "b"]', '["a",', '["a", nonsense]', "[,]"):
        with pytest.raises(Unreadable, match="broken JSON at item"):
            read(".json", text)


def test_table_rows_that_do_not_fit_the_header():
    found = read(".csv", 'id,text\n1\n\n2,"a, ""b""\nc"\n3,"d"e\n4,f\n')
    assert found[0] == Bad("row 1", "fewer fields than the header")
    assert found[1] == (":3", 'a, "b"\nc')
    assert isinstance(found[2], Bad)
    assert found[2].reason.startswith("not a row")
    assert found[3] == (":5", "f")
    with pytest.raises(Unreadable, match=r"no column 'text'.*Did you mean 'texts'"):
        read(".csv", "id,texts\n1,a\n")
    with pytest.raises(Unreadable, match="no column 'text'"):
        read(".csv", "")
    with pytest.raises(Unreadable, match="no column 'text'"):
        read(".csv", 'id,"te\nxt"\n1,a\n')
    assert read(".tsv", "body\ta\nx\ty\n", text_column="a") == [(":1", "y")]


def test_a_quote_that_is_never_closed_costs_its_line_alone(monkeypatch):
    monkeypatch.setattr("bimo.text.decode.CHUNK", 16)
    rows = [f'{number},"今天, {number}\n天气"\n' for number in range(1, 9)]
    whole = read(".csv", "id,text\n" + "".join(rows))
    assert whole == [(f":{number}", f"今天, {number}\n天气") for number in range(1, 9)]
    for at in range(8):  # nothing but that line: its neighbours are what they were
        broken = [*rows[:at], f'{at + 1},"open\n', *rows[at + 1 :]]
        found = read(".csv", "id,text\n" + "".join(broken))
        assert [one for one in found if not isinstance(one, Bad)] == whole[:at] + whole[at + 1 :]
        (bad,) = (one for one in found if isinstance(one, Bad))
        assert bad.where == f"row {at + 1}" and bad.reason.startswith("not a row: ")
    assert read(".csv", "id,text\n" + rows[0] + '2,"open\nx,y\n')[1:] == [
        Bad("row 2", "not a row: a quote that is never closed"),
        (":3", "y"),
    ]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(['"', '""', "a", ",", "\n", "b,c\n", '"x"']), max_size=40).map("".join))
def test_no_table_is_read_for_ever_or_leaves_out_a_plain_row_at_its_end(text):
    found = read(".csv", "id,text\n" + text + "\n1,last\n")
    assert found[-1][1] == "last" if not isinstance(found[-1], Bad) else False


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [f"text {number}\r\n" for number in range(150)] + [None]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": list(range(151)), "text": texts}), path, row_group_size=70)
    with path.open("rb") as file:
        records = list(READERS[".parquet"](file, Options()))
    assert [(record.key, record.text) for record in records[:-1]] == [
        (f":{number}", f"text {number}\n") for number in range(150)
    ]
    assert isinstance(records[-1], Bad)
    assert (
        list(READERS[".parquet"](io.BytesIO(path.read_bytes()), Options())) == records
    )  # not a plain file: copied first
    with pytest.raises(Unreadable, match="Did you mean 'id'"):
        read(".parquet", path.read_bytes(), text_column="ids")
    with pytest.raises(Unreadable, match="damaged Parquet"):
        read(".parquet", path.read_bytes()[:-9])
    damaged = bytearray(path.read_bytes())
    damaged[4 : len(damaged) // 2] = bytes(len(damaged) // 2 - 4)
    with pytest.raises(Unreadable, match="damaged Parquet"):
        read(".parquet", bytes(damaged))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_delimiter_of_a_table_is_found_out(suffix, delimiter):
    rows = [["id, or number", "text", "a;b"], ["1", "one, two; three\tfour", ""], ["2", "一，二；三\n四", "x"]]
    table = io.StringIO(newline="")
    csv.writer(table, delimiter=delimiter).writerows(rows)
    assert read(suffix, table.getvalue()) == [(":1", rows[1][1]), (":2", rows[2][1])]
    with pytest.raises(Unreadable, match="Known: |Did you mean"):
        read(suffix, table.getvalue(), text_column="nothing like it")


@pytest.mark.parametrize("form", ["file", "stream", "feather"])
def test_arrow(tmp_path, form):
    pyarrow, feather = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.feather")
    texts = [f"文本 {number}\r\n" for number in range(150)] + [None]
    table = pyarrow.table({"id": list(range(151)), "text": texts, "meta": [{"a": [number]} for number in range(151)]})
    path = tmp_path / "a.arrow"
    if form == "feather":
        feather.write_feather(table, path, compression="zstd")
    else:
        new = pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    data = path.read_bytes()
    records = read(".arrow", data)
    assert records[:-1] == [(f":{number}", f"文本 {number}\n") for number in range(150)]
    assert records[-1] == Bad("row 150", "the text is of type NoneType, not a string")
    with path.open("rb") as file:
        assert [record.key for record in READERS[".feather"](file, Options(text_column="id", template="{id}"))] == [
            f":{number}" for number in range(151)
        ]
        assert not file.closed
    with pytest.raises(Unreadable, match="Did you mean 'id'"):
        read(".arrow", data, text_column="ids")
    for cut in (0, 5, 50, len(data) // 2):
        with pytest.raises(Unreadable, match="damaged Arrow"):
            read(".arrow", data[:cut])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_arrow_never_crashes(data):
    pyarrow = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    table = pyarrow.table({"text": ["one", "两", None, "four"] * 20})
    with data.draw(st.sampled_from([pyarrow.ipc.new_file, pyarrow.ipc.new_stream]))(sink, table.schema) as writer:
        writer.write_table(table)
    damaged = bytearray(sink.getvalue())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=9)):
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        assert len(read(".arrow", bytes(damaged))) < 1_000_000
    except Unreadable:
        pass


@given(st.lists(st.sampled_from([".", "a", ".gz", ".tgz", ".TXT", ".tar", "/", " "]), max_size=5).map("".join))
def test_the_suffixes_of_a_name_are_those_of_pathlib(name):
    path = PurePath(name.lower())
    if path.suffix in SHORT_FORMS:
        path = path.with_suffix(SHORT_FORMS[path.suffix])
    if path.suffix in (".gz", ".zst", ".bz2", ".xz"):
        assert suffixes_of(name) == (PurePath(path.stem).suffix, path.suffix)
    else:
        assert suffixes_of(name) == (path.suffix, "")


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXTS = st.text(st.sampled_from('墨笔a b,"\n\r'), min_size=1, max_size=9).map(lambda text: f"x{text}")


@settings(max_examples=80)
@given(
    st.lists(TEXTS, min_size=1, max_size=9),
    ENDS,
    st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16-le"]),
    st.data(),
)
def test_a_record_says_where_it_begins(texts, end, encoding, draw):
    blanks = draw.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)))
    rows = io.StringIO(newline="")
    csv.writer(rows, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(
        [["n", "text"], *([str(n), text] for n, text in enumerate(texts))]
    )
    lines = "".join(
        end * blank + json.dumps(text, ensure_ascii=False) + end for text, blank in zip(texts, blanks, strict=True)
    )
    for suffix, written in ((".jsonl", lines), (".csv", rows.getvalue())):
        data = written.encode(encoding)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bimo.text.decode.CHUNK", draw.draw(st.integers(1, 40)))
            found = list(READERS[suffix](io.BytesIO(data), Options(encoding=encoding.removesuffix("-sig"))))
        assert len(found) == len(texts)
        for number, record in enumerate(found):
            if encoding == "utf-16-le":
                assert record.offset == -1
                continue
            begin = data[record.offset :].decode(encoding)
            if suffix == ".jsonl":
                assert begin.startswith(json.dumps(texts[number], ensure_ascii=False) + end)
            else:
                assert begin.startswith(f'"{number}",') and data[: record.offset].decode(encoding).endswith(end)
