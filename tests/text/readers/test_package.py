import io
import struct
import tracemalloc
import zipfile

import pytest

from bimo.text.decode import Unreadable
from bimo.text.readers import package as module
from bimo.text.readers.package import open_package, read_member, without_media


def zipped(members, packing=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as package:
        for name, content in members.items():
            package.writestr(name, content)
    return file.getvalue()


def opened(data, **options):
    with open_package(io.BytesIO(data), "Word file", **options) as package:
        return package.namelist()


def test_what_a_package_may_hold(monkeypatch):
    monkeypatch.setattr(module, "RECORD_BYTES", 100)
    monkeypatch.setattr(module, "TOTAL_BYTES", 250)
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    fitting = zipped({"a": b"x" * 100, "b": b"x" * 100, "word/media/film.mp4": b"x" * 9999})
    assert opened(fitting) == ["a", "b", "word/media/film.mp4"]
    with pytest.raises(Unreadable, match="zip bomb, or too large: 'a' inside unpacks to more than 64 MB"):
        opened(zipped({"a": b"x" * 101}))
    assert opened(zipped({"a": b"x" * 101}), streamed="a")
    with pytest.raises(Unreadable, match="more than 128 MB"):
        opened(zipped(dict.fromkeys("abc", b"x" * 90)))
    with pytest.raises(Unreadable, match="4 files inside"):
        opened(zipped(dict.fromkeys("abcd", b"")))


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_declares():
    data = zipped({"a.xml": b"x" * 50_000_000})
    entry = data.index(b"PK\1\2")
    lying = bytearray(data)
    struct.pack_into("<I", lying, 22, 1000)
    struct.pack_into("<I", lying, entry + 24, 1000)
    with open_package(io.BytesIO(bytes(lying)), "Word file") as package:
        tracemalloc.start()
        with pytest.raises(Unreadable, match="damaged file inside: Bad CRC-32"):
            read_member(package, "a.xml")
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"), without_media(package):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 5_000_000


def test_protected_old_and_damaged_packages():
    for data in (b"", b"PK", b"text", zipped({"a": b"b"})[:-10]):
        with pytest.raises(Unreadable, match="damaged Word file, or none"):
            opened(data)
    with pytest.raises(Unreadable, match="protected by a password, or in a format of before 2007"):
        opened(module.OLD_OFFICE + b"\0" * 99)
    encrypted = bytearray(zipped({"a": b"b"}))
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(Unreadable, match="protected by a password: save a copy"):
        opened(bytes(encrypted))
    with pytest.raises(Unreadable, match="packed in a way that the format does not allow"):
        opened(zipped({"a": b"b"}, zipfile.ZIP_BZIP2))
    with pytest.raises(Unreadable, match="nothing in it"):
        opened(zipped({}))


def test_a_long_member_has_rows_of_bounded_size(monkeypatch):
    monkeypatch.setattr(module, "RECORD_BYTES", 300)
    monkeypatch.setattr(module, "ROW_BYTES", 100)
    monkeypatch.setattr(module, "CHUNK", 40)
    for content, fits in ((b"<row>" + b"x" * 250, True), (b"<row>" + b"x" * 350, False), (b"<row>xxxx" * 50, True)):
        with open_package(io.BytesIO(zipped({"sheet": content})), "Excel file", streamed="sheet") as package:
            if fits:
                with without_media(package, row=b"row") as file:
                    assert zipfile.ZipFile(file).read("sheet") == content
            else:
                with pytest.raises(Unreadable, match="a row inside"), without_media(package, row=b"row"):
                    pass


def test_media_are_emptied_in_the_copy():
    data = zipped({"word/document.xml": b"<a/>", "word/media/image1.png": b"x" * 99})
    with open_package(io.BytesIO(data), "Word file") as package, without_media(package) as file:
        copy = zipfile.ZipFile(file)
        assert {name: copy.read(name) for name in copy.namelist()} == {
            "word/document.xml": b"<a/>",
            "word/media/image1.png": b"",
        }
        assert read_member(package, "word/media/image1.png") == b"x" * 99
        assert read_member(package, "nothing") is None
