import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import ConfigError
from bimo.text.decode import (
    CutShort,
    Unreadable,
    ZstdStream,
    byte_chunks,
    check_encoding,
    decompressed,
    text_chunks,
    text_lines,
)
from bimo.text.readers import READERS
from bimo.text.readers.record import Options


class Dribble(io.RawIOBase):
    """Gives its bytes in pieces of the sizes in turn."""

    def __init__(self, data, sizes):
        self.data, self.sizes = data, [*sizes]

    def read(self, size=-1):
        size = self.sizes.pop(0) if self.sizes else 3
        head, self.data = self.data[:size], self.data[size:]
        return head


def decode(data, encoding="utf-8", sizes=()):
    return "".join(text_chunks(Dribble(data, sizes), encoding))


NO_NUL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))


@given(NO_NUL, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.lists(st.integers(1, 7)))
def test_any_text_survives_any_chunking(text, encoding, sizes):
    assert decode(text.encode(encoding), sizes=sizes) == text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_nul_characters_make_a_file_binary(encoding):
    with pytest.raises(Unreadable, match="binary file"):
        decode("ab\0c".encode(encoding))


def test_the_offset_of_a_wrong_byte_is_told_across_chunks():
    data = "héé".encode() + "中文".encode("gb18030")
    for sizes in ([1] * 20, [2, 3, 5], [100]):
        with pytest.raises(Unreadable, match=r"not UTF-8 \(byte 0xd6 at offset 5\): .* --encoding"):
            decode(data, sizes=sizes)
    with pytest.raises(Unreadable, match="offset 8"):
        decode(b"\xef\xbb\xbfabcde\xff", sizes=[100])
    with pytest.raises(Unreadable, match="byte 0xe4 at offset 2"):
        decode("ab中".encode()[:-1])


def test_a_named_encoding_is_used_and_a_mark_wins_over_it():
    assert decode("笔墨\r\n".encode("gb18030"), "gb18030") == "笔墨\n"
    assert decode("笔墨".encode("utf-16"), "gb18030") == "笔墨"
    with pytest.raises(Unreadable, match="not ascii"):
        decode("é".encode(), "ascii")
    with pytest.raises(Unreadable, match="binary file"):
        decode("ab".encode("utf-16-le"))


def test_an_unknown_encoding_is_refused():
    check_encoding("GB18030")
    for name in ("utf-99", "rot13", "a\0b"):
        with pytest.raises(ConfigError, match="gb18030"):
            check_encoding(name)


@given(st.lists(st.binary(max_size=50_000), max_size=3), st.lists(st.integers(1, 700), max_size=5))
def test_zstd_frames_are_read_one_after_the_other(parts, sizes):
    data = b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)
    stream = ZstdStream(Dribble(data, sizes))
    found = b""
    while piece := stream.read(1000):
        assert len(piece) <= 1000
        found += piece
    assert found == b"".join(parts)


COMPRESSIONS = [(".gz", gzip.compress), (".zst", zstandard.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_cut_or_damaged_compression_is_told(suffix, compress):
    data = compress(bytes(range(7, 256)) * 999)
    assert b"".join(byte_chunks(decompressed(io.BytesIO(data), suffix))) == bytes(range(7, 256)) * 999
    for cut in (3, len(data) // 2, len(data) - 1):
        with pytest.raises(Unreadable, match="cut short"):
            list(byte_chunks(decompressed(io.BytesIO(data[:cut]), suffix)))
    with pytest.raises(Unreadable, match="damaged"):
        list(byte_chunks(decompressed(io.BytesIO(b"not compressed at all"), suffix)))


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_what_was_written_of_half_a_file_is_read(suffix, compress):
    text = random.Random(1).randbytes(1_500_000).hex()
    data = compress(text.encode()) + compress(b"more")
    assert "".join(text_chunks(decompressed(io.BytesIO(data), suffix), "utf-8")) == text + "more"
    pieces = []
    with pytest.raises(CutShort):
        for piece in text_chunks(decompressed(io.BytesIO(data[: len(data) * 2 // 3]), suffix), "auto"):
            pieces.append(piece)
    assert text.startswith("".join(pieces))
    assert len("".join(pieces)) > len(text) / 5


def test_what_precedes_garbage_is_read():
    stream = decompressed(io.BytesIO(gzip.compress(b"good ") + gzip.compress(b"night") + b"garbage"), ".gz")
    pieces = []
    with pytest.raises(CutShort, match="followed by bytes that are not compressed"):
        for piece in text_chunks(stream, "utf-8"):
            pieces.append(piece)
    assert "".join(pieces) == "good night"


@pytest.mark.parametrize(
    ("at", "reason"), [(-5, "its checksum is wrong"), (-1, "its checksum is wrong"), (200_000, "damaged: Error -3")]
)
def test_what_precedes_damage_is_kept(at, reason):
    chance = random.Random(2)
    text = "\n\n".join(chance.randbytes(40).hex() for _ in range(9_000))
    data = bytearray(gzip.compress(text.encode()))
    if at < 0:
        data[at] ^= 0x55
    else:
        data[at : at + 9_000] = chance.randbytes(9_000)
    records = []
    with pytest.raises(CutShort, match=reason):
        for record in READERS[".txt"](decompressed(io.BytesIO(data), ".gz"), Options()):
            records.append(record)
    (record,) = records
    (note,) = record.notes
    if at < 0:
        assert record.text == text and note == "the checksum of the file is wrong"
    else:
        assert record.text.startswith(text[:300_000]) and note == "the rest is damaged"


@pytest.mark.parametrize(("suffix", "compress"), COMPRESSIONS)
def test_a_compression_bomb_is_no_file(suffix, compress, monkeypatch):
    monkeypatch.setattr("bimo.text.decode.EXPANSION_FREE", 1 << 18)
    bomb = decompressed(io.BytesIO(compress(b"a" * (1 << 25))), suffix)
    with pytest.raises(Unreadable, match="bomb"):
        list(byte_chunks(bomb))
    log = compress(b"".join(b"line %d of a log that repeats itself much\n" % number for number in range(99_999)))
    assert sum(map(len, byte_chunks(decompressed(io.BytesIO(log), suffix)))) > 1 << 22


def test_a_decompression_bomb_comes_in_bounded_pieces():
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 26))
    stream = ZstdStream(io.BytesIO(bomb))
    total = 0
    while piece := stream.read(1 << 18):
        assert len(piece) <= 1 << 18
        total += len(piece)
    assert total == 1 << 26


@given(st.lists(st.text("ab\n", max_size=9)), st.integers(2, 5))
def test_lines_are_those_of_split_and_long_ones_are_marked(chunks, limit):
    expected = "".join(chunks).split("\n")
    expected = expected[:-1] if not expected[-1] else expected
    lines = list(text_lines(chunks, limit))
    assert [number for number, _ in lines] == list(range(1, len(expected) + 1))
    assert [line for _, line in lines] == [line if len(line) <= limit else None for line in expected]
