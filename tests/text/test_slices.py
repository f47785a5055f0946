import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bimo.text.document import Document
from bimo.text.listing import File
from bimo.text.slices import sliced
from bimo.text.source import open_source

RECORDS = [
    b'{"text": "one"}',
    '"笔墨 é 𝄞"'.encode(),
    b"",
    b"  ",
    b"{broken",
    b'{"text": ""}',
    b'"\\ud800"',
    b'{"other": 1}',
    b'"a\\r\\nb"',
]
ODD = ["笔墨".encode("gb18030"), b"\x01", b'"\0"', "\ufeff1".encode(), '"\ufffd"'.encode(), b'"\xff"', b"\x1b$B"]
BLANK = b"\n" * 30 + b" " * 40 + "\u3000\n".encode() * 30
ENDS = [b"\n", b"\n", b"\r\n", b"\r", b"\n\n"]


def read(source):
    return [(found, getattr(found, "offset", None)) for found in source.records()]


@given(
    st.lists(st.tuples(st.sampled_from(RECORDS + ODD[:1]), st.sampled_from(ENDS)), min_size=1, max_size=30),
    st.booleans(),
    st.integers(1, 40),
)
@example([(RECORDS[0], b"\n")] * 9, False, 1)
@example([(one, b"\r\n") for one in RECORDS], True, 3)
def test_slices_give_what_the_file_gives(tmp_path_factory, records, ended, size):
    path = tmp_path_factory.mktemp("in") / "a.jsonl"
    data = b"".join(record + end for record, end in records)
    path.write_bytes(data if ended else data.rstrip(b"\r\n"))
    source = open_source(path)
    whole, unread = read(source), source.unread
    source.files = tuple(sliced(source.files, "auto", size))
    assert sum(file.size for file in source.files) == source.total_bytes == len(path.read_bytes())
    assert read(source) == whole
    assert source.bytes_done == source.total_bytes
    assert source.unread == unread


@pytest.mark.parametrize("odd", [None, BLANK, *ODD])
def test_a_file_in_which_lines_depend_on_each_other_stays_whole(tmp_path, odd):
    lines = [json.dumps(f"笔墨 {number}", ensure_ascii=False).encode() for number in range(40)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines[:30] + [odd] * (odd is not None) + lines[30:]))
    source = open_source(tmp_path)
    files = list(sliced(source.files, "auto", 20))
    assert len(files) == 1 if odd in ODD else len(files) > 10
    assert len(list(sliced(source.files, "gb18030", 20))) == 1


def test_a_file_that_begins_blank_stays_whole(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BLANK)
    source = open_source(tmp_path)
    source.files = tuple(sliced(source.files, "auto", 9))
    assert list(source) == [] and [str(one) for one in source.skipped] == ["a.jsonl: no records"]


def test_which_files_are_sliced(tmp_path):
    line = b'"one"\n'
    for name in ("a.jsonl", "b.NDJSON", "c.txt", "d.jsonl.gz", "e.json"):
        (tmp_path / name).write_bytes(line * 50)
    (tmp_path / "small.jsonl").write_bytes(line * 13)
    listed = open_source(tmp_path).files
    found = [file.name for file in sliced(listed, "auto", 20)]
    assert {name for name in found if found.count(name) > 1} == {"a.jsonl", "b.NDJSON"}
    assert list(dict.fromkeys(found)) == [file.name for file in listed]
    slices = [file for file in sliced(listed, "utf-8", 20) if file.name == "a.jsonl"]
    assert [(file.begin, file.size, file.line) for file in slices[:2]] == [(0, 24, 1), (24, 24, 5)]
    gone = File(tmp_path / "gone.jsonl", "gone.jsonl", 1_000, 0)
    grown = File(tmp_path / "a.jsonl", "a.jsonl", 1_000, 0)
    assert list(sliced([gone, grown], "auto", 20)) == [gone, grown]


def test_a_line_that_is_too_long_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("bimo.text.slices.LONGEST_LINE", 50)
    (tmp_path / "a.jsonl").write_bytes(b'"one"\n' * 20 + b'"' + b"x" * 99 + b'"\n')
    source = open_source(tmp_path)
    assert len(list(sliced(source.files, "auto", 10))) == 1
    assert all(isinstance(one, Document) for one, _ in read(source))
