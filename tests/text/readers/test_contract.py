"""What holds for every reader: real text comes out as it went in, and nothing that a file holds makes it fail."""

import gzip
import io

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bimo.text.decode import Unreadable
from bimo.text.document import KINDS
from bimo.text.readers import READERS
from bimo.text.readers.record import Bad, Options
from bimo.text.source import open_source

ENGLISH = ("The ink stone is old.", "Its maker signed it twice, once below.")
CHINESE = ("笔墨是书画的工具。", "墨色如漆，历久弥新：第二段。")
ONE_OF_EACH = sorted({str(reader): suffix for suffix, reader in reversed(READERS.items())}.values())


class OneWay:
    """A stream without seek, such as a compressed file."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size=-1, /):
        return self.file.read(size)


def read(suffix, data):
    """All records, those before the end or before it became unreadable."""
    records, reason = [], "none"
    try:
        for record in READERS[suffix](OneWay(data), Options()):
            records.append(record)
    except Unreadable as cause:
        reason = str(cause)
    assert reason.strip()
    for record in records:
        if isinstance(record, Bad):
            assert record.reason
        else:
            assert "\r" not in record.text
            assert record.kind in ("", *KINDS)
    return records


@pytest.mark.parametrize("paragraphs", [ENGLISH, CHINESE], ids=["english", "chinese"])
@pytest.mark.parametrize("suffix", sorted(READERS))
def test_a_small_file_gives_its_text(make_sample, suffix, paragraphs):
    data = make_sample(suffix, paragraphs)
    records = read(suffix, data)
    assert not [record for record in records if isinstance(record, Bad)]
    found = [line for record in records for line in record.text.split("\n") if line.strip()]
    assert tuple(found) == paragraphs
    assert len({record.key for record in records}) == len(records)
    assert list(READERS[suffix](io.BytesIO(data), Options())) == records, "a seekable stream is read otherwise"


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_every_reader_reads_gz_and_zst_too(tmp_path, make_sample, suffix):
    data = make_sample(suffix, CHINESE)
    for name, content in (
        (f"a{suffix}", data),
        (f"b{suffix}.gz", gzip.compress(data)),
        (f"C{suffix}.ZST", zstandard.compress(data)),
    ):
        (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path)
    texts = [document.text for document in source]
    third = len(texts) // 3
    assert "".join(texts).count(CHINESE[1]) == 3, source.skipped
    assert texts[:third] == texts[third : 2 * third] == texts[2 * third :]
    assert source.skipped == []


@pytest.mark.parametrize("suffix", ONE_OF_EACH)
def test_an_empty_file_gives_nothing(suffix):
    assert not [record for record in read(suffix, b"") if not isinstance(record, Bad) and record.text]


@pytest.mark.parametrize("suffix", ONE_OF_EACH)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_random_bytes_are_contained(suffix, data):
    read(suffix, data)


@pytest.mark.parametrize("suffix", ONE_OF_EACH)
@settings(max_examples=40)
@given(st.data())
def test_cut_and_damaged_files_are_contained(make_sample, suffix, draw):
    data = bytearray(make_sample(suffix, CHINESE))
    if draw.draw(st.booleans(), label="cut"):
        del data[draw.draw(st.integers(0, len(data)), label="at") :]
    for at, value in draw.draw(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=5)):
        if data:
            data[at % len(data)] = value
    read(suffix, bytes(data))
