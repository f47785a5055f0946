import io
import os

import pytest

from bimo.text import decode
from bimo.text.decode import Unreadable, seekable
from bimo.text.readers import streams
from bimo.text.readers.streams import damage_reported, whole


class OneWay:
    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size=-1, /):
        return self.file.read(size)


def test_a_stream_of_any_kind_can_be_sought_in(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    with (tmp_path / "a").open("rb") as plain, seekable(plain) as file:
        assert file is plain
    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    os.close(writing)
    with open(reading, "rb") as pipe, seekable(pipe) as file, seekable(OneWay(b"0123456789")) as other:
        for found in (file, other):
            assert found.seek(-2, io.SEEK_END) == 8
            assert found.read() == b"89"
            assert found.seek(0) == 0
            assert found.read() == b"0123456789"


def test_sizes_are_bounded(monkeypatch):
    monkeypatch.setattr(streams, "RECORD_BYTES", 5)
    monkeypatch.setattr(decode, "SPOOL_DISK", 7)
    assert whole(OneWay(b"12345")) == b"12345"
    with pytest.raises(Unreadable, match="larger than 64 MB"):
        whole(OneWay(b"123456"))
    with seekable(OneWay(b"1234567")) as file:
        assert file.read() == b"1234567"
    with pytest.raises(Unreadable, match="larger than"), seekable(OneWay(b"12345678")):
        pass


def test_what_libraries_raise_becomes_a_reason():
    class Own(Exception):
        pass

    for cause, said in ((KeyError("x"), "'x'"), (Own("line\nother"), "line"), (ValueError(), "ValueError")):
        with pytest.raises(Unreadable, match=f"damaged thing: {said}$"), damage_reported("thing", Own):
            raise cause
    with pytest.raises(Own), damage_reported("thing"):
        raise Own
    with pytest.raises(Unreadable, match="^as it was$"), damage_reported("thing"):
        raise Unreadable("as it was")
