"""Archives: any tree comes back, and what is wrong with one member costs no other."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.text.decode import CutShort, Unreadable, decompressed
from bimo.text.readers import READERS, archives
from bimo.text.readers.record import Bad, Options, Text
from bimo.text.source import open_source


def zipped(members, **options):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return sink.getvalue()


def tarred(members, form=tarfile.PAX_FORMAT):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def read(data, suffix):
    return list(READERS[suffix](io.BytesIO(data), Options()))


def texts(records):
    return {record.key: record.text for record in records if isinstance(record, Text)}


def reasons(records):
    return {record.where: record.reason for record in records if isinstance(record, Bad)}


MAKERS = {
    ".zip": zipped,
    ".tar": tarred,
    ".tar.gz": lambda members: gzip.compress(tarred(members)),
    ".tgz": lambda members: gzip.compress(tarred(members, tarfile.GNU_FORMAT)),
    ".tar.bz2": lambda members: bz2.compress(tarred(members)),
    ".tar.xz": lambda members: lzma.compress(tarred(members, tarfile.USTAR_FORMAT)),
    ".tar.zst": lambda members: zstandard.compress(tarred(members)),
}
STEMS = st.text(st.characters(categories=["L", "N"], max_codepoint=0x9FFF), min_size=1, max_size=8).map(
    lambda stem: f"x{stem}"
)
LEAVES = st.text(st.characters(categories=["L", "N"], include_characters=" \n。"), min_size=1).filter(str.strip)
TREES = st.recursive(
    LEAVES,
    lambda children: st.tuples(
        st.sampled_from(["/", *MAKERS]), st.dictionaries(STEMS, children, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def packed(tree, path, depth):
    """The members of a tree as (name, bytes), and the texts that are expected of them by their keys."""
    if isinstance(tree, str):
        return [(f"{path}.txt", tree.encode())], {f"!{path}.txt": tree}
    form, children = tree
    if form != "/" and depth == archives.DEPTH:
        form = "/"
    members, expected = [], {}
    for stem, child in children.items():
        inside, found = packed(child, f"{path}/{stem}" if form == "/" and path else stem, depth + (form != "/"))
        members += inside
        expected |= found
    if form == "/":
        return members, expected
    return [(f"{path}{form}", MAKERS[form](members))], {f"!{path}{form}{key}": text for key, text in expected.items()}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(STEMS, TREES, min_size=1, max_size=4), st.sampled_from([".zip", ".tar"]))
def test_any_tree_comes_back(children, suffix):
    members, expected = packed(("/", children), "", 1)
    found = read(MAKERS[suffix](members), suffix)
    assert reasons(found) == {}
    assert texts(found) == expected


@pytest.mark.parametrize("suffix", sorted(MAKERS))
def test_members_are_read_by_their_own_readers(tmp_path, suffix):
    inner = {
        "deep/page.md": "# 笔墨".encode(),
        "run.py": b"print()",
        "cn.txt": "却说曹操引兵追赶刘备".encode("gb18030"),
    }
    members = {
        "a.jsonl": b'{"text": "one"}\n{"txt": 2}\n"three"',
        "./b.csv": b"text\nrow\n",
        "c.txt.gz": gzip.compress(b"in gz"),
        f"inner{suffix}": MAKERS[suffix](inner),
        "picture.png": b"\x89PNG",
        ".hidden/x.txt": b"no",
        ".hidden/.y/z.txt": b"no",
        "__MACOSX/._a.txt": b"no",
        "binary.txt": bytes(99),
    }
    (tmp_path / f"all{suffix}").write_bytes(MAKERS[suffix](members))
    source = open_source(tmp_path)
    found = {document.id: (document.text, document.kind, document.notes) for document in source}
    top = f"all{suffix}!"
    assert found == {
        f"{top}a.jsonl:1": ("one", "prose", ()),
        f"{top}a.jsonl:3": ("three", "prose", ()),
        f"{top}b.csv:1": ("row", "prose", ()),
        f"{top}c.txt.gz": ("in gz", "prose", ()),
        f"{top}inner{suffix}!deep/page.md": ("# 笔墨", "prose", ()),
        f"{top}inner{suffix}!run.py": ("print()", "code", ()),
        f"{top}inner{suffix}!cn.txt": ("却说曹操引兵追赶刘备", "prose", ("decoded as gb18030",)),
    }
    assert sorted(skipped.reason for skipped in source.skipped) == [
        "binary file (binary.txt)",
        "hidden (2 records, first .hidden/)",  # and __MACOSX/
        "no column 'text' (see --text-column). Did you mean 'txt'? (a.jsonl line 2)",
        "unknown suffix .png (picture.png)",
    ]
    assert {document.source for document in source} == {f"all{suffix}"}


def test_a_parquet_file_in_an_archive():
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["笔墨"]}), sink)
    for suffix in (".zip", ".tar"):
        assert texts(read(MAKERS[suffix]({"a/b.parquet": sink.getvalue()}), suffix)) == {"!a/b.parquet:0": "笔墨"}


OUTSIDE = ["../up.txt", "a/../../up.txt", "/etc/abs.txt", "C:\\win.txt", "..\\up.txt", "\\\\server\\share.txt", "a/.."]


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_names_that_lead_outside_are_refused_and_nothing_is_written(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    members = {**dict.fromkeys(OUTSIDE, b"evil"), "good..txt": b"good", "a/..b/c.txt": b"hidden", "z.txt": b"last"}
    found = read(MAKERS[suffix](members), suffix)
    assert texts(found) == {"!good..txt": "good", "!z.txt": "last"}
    assert reasons(found) == {**dict.fromkeys(OUTSIDE, "a name that leads out of the archive"), "a/..b/": "hidden"}
    assert os.listdir(tmp_path) == []


def test_links_and_devices_are_refused():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind in {
            "soft.txt": tarfile.SYMTYPE,
            "hard.txt": tarfile.LNKTYPE,
            "null.txt": tarfile.CHRTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("folder.txt")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        info = tarfile.TarInfo("good.txt")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"good"))
    found = read(sink.getvalue(), ".tar")
    assert texts(found) == {"!good.txt": "good"}
    assert reasons(found) == {"soft.txt": "a link", "hard.txt": "a link", "null.txt": "not a regular file"}
    link, pipe = zipfile.ZipInfo("link.txt"), zipfile.ZipInfo("pipe.txt")
    link.external_attr, pipe.external_attr = (stat.S_IFLNK | 0o777) << 16, (stat.S_IFIFO | 0o666) << 16
    found = read(zipped([(link, "/etc/passwd"), (pipe, ""), ("good.txt", "good")]), ".zip")
    assert texts(found) == {"!good.txt": "good"}
    assert reasons(found) == {"link.txt": "a link", "pipe.txt": "not a regular file"}


def test_encrypted_and_damaged_members_of_a_zip():
    data = bytearray(zipped({f"{number}.txt": f"member {number} " * 99 for number in range(5)}))
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1  # the flag of encryption, of the first member
    second = data.index(b"2.txt") + 5
    data[second : second + 9] = b"\xff" * 9
    third = data.index(b"3.txt")
    data[third - 30 : third - 28] = b"XX"  # no local header
    crc = data.index(b"4.txt", directory) - 46 + 16
    data[crc] ^= 1
    found = read(bytes(data), ".zip")
    assert texts(found) == {"!1.txt": "member 1 " * 99}
    assert list(reasons(found)) == ["0.txt", "2.txt", "3.txt", "4.txt"]
    assert reasons(found)["0.txt"].startswith("encrypted")
    assert all(reason.startswith("damaged: ") for where, reason in reasons(found).items() if where != "0.txt")


def test_what_was_written_of_half_an_archive_is_read():
    lines = "".join(f"line {number}\n" for number in range(9000))
    data = tarred({"a.txt": b"whole", "b.txt": lines.encode(), "c.txt": b"lost"})
    for cut, compression in (
        (data[:60_000], ""),
        (gzip.compress(data)[:-9000], ".gz"),
        (lzma.compress(data)[:-2000], ".xz"),
    ):
        found = []
        with pytest.raises(CutShort):
            for record in READERS[".tar"](decompressed(io.BytesIO(cut), compression), Options()):
                found.append(record)
        assert texts(found)["!a.txt"] == "whole"
        part = texts(found).get("!b.txt", "")
        assert lines.startswith(part)
        assert len(part) > 9000


class Unseekable(io.BytesIO):
    """Makes the writer put sizes behind the members."""

    def seekable(self):
        return False

    def tell(self):
        raise OSError

    def seek(self, *_):
        raise OSError


@settings(max_examples=80, deadline=None)
@given(st.lists(LEAVES, min_size=1, max_size=6), st.booleans(), st.booleans(), st.data())
def test_members_of_half_a_zip_are_found(leaves, streamed, stored, data):
    sink = Unseekable() if streamed else io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED if stored and not streamed else zipfile.ZIP_DEFLATED) as archive:
        ends = []
        for number, leaf in enumerate(leaves):
            archive.writestr(f"{number}.txt", leaf.encode() * 9)
            ends.append(archive.fp.tell() if not streamed else len(sink.getvalue()))
    cut = data.draw(st.integers(ends[0], ends[-1]))
    found = []
    with pytest.raises(CutShort, match="directory"):
        for record in READERS[".zip"](io.BytesIO(sink.getvalue()[:cut]), Options(encoding="utf-8")):
            found.append(record)
    whole = [f"!{number}.txt" for number, end in enumerate(ends) if end <= cut]
    got = texts(found)
    assert {key: got.get(key) for key in whole} == {key: leaves[int(key[1:-4])] * 9 for key in whole}
    assert set(got) - set(whole) <= {f"!{len(whole)}.txt"}
    assert all((leaves[int(key[1:-4])] * 9).startswith(text) for key, text in got.items())


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_damaged_header_costs_one_member_of_a_tar(number):
    data = bytearray(tarred({f"{number}.txt": f"member {number}".encode() for number in range(4)}))
    at = data.index(f"{number}.txt".encode())
    data[at : at + 300] = b"x" * 300
    found = read(bytes(data), ".tar")
    assert texts(found) == {f"!{other}.txt": f"member {other}" for other in range(4) if other != number}
    bad = [record.reason for record in found if isinstance(record, Bad)]
    assert bad == ["a damaged header in the archive: members may be missing"]


def test_what_is_no_tar():
    with pytest.raises(Unreadable, match="not a tar"):
        read(b"this is not an archive\n" * 999, ".tar")


def test_a_huge_header_of_a_tar_is_not_kept_in_memory():
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(Unreadable, match=r"damaged: a header of 1,099,511,627,776 bytes"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(99_999), ".tar")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_bombs_are_contained(monkeypatch, suffix):
    monkeypatch.setattr(archives, "MEMBER_FREE", 1 << 19)
    monkeypatch.setattr("bimo.text.decode.EXPANSION_FREE", 1 << 19)
    bomb = zipped({"bomb.txt": b"a" * (1 << 24), "good.txt": b"good"})
    found = read(MAKERS[suffix]({"in.zip": bomb, "b.txt.xz": lzma.compress(b"a" * (1 << 24)), "z.txt": b"z"}), suffix)
    assert texts(found) == {"!in.zip!good.txt": "good", "!z.txt": "z"}
    assert set(reasons(found)) == {"in.zip!bomb.txt", "b.txt.xz"}
    assert all("bomb" in reason for reason in reasons(found).values())


def test_many_small_bombs_together_end_the_archive(monkeypatch):
    monkeypatch.setattr(archives, "ARCHIVE_FREE", 1 << 21)
    inner = zipped({f"{number}.txt": b"good night\n" * 40_000 for number in range(50)})
    found = []
    with pytest.raises(Unreadable, match="an archive bomb"):
        for record in READERS[".zip"](io.BytesIO(zipped({"a.zip": inner, "b.zip": inner})), Options()):
            found.append(record)
    assert 0 < len(found) < 40


def test_archives_in_archives_in_archives_have_an_end():
    data = zipped({"core.txt": b"deep"})
    for depth in range(5):
        data = zipped({f"{depth}.zip": data, f"{depth}.txt": b"here"})
    found = read(data, ".zip")
    assert texts(found) == {"!4.txt": "here", "!4.zip!3.txt": "here", "!4.zip!3.zip!2.txt": "here"}
    assert reasons(found) == {"4.zip!3.zip!2.zip": "archives nested more than 3 deep"}


def test_members_of_one_name_keep_different_ids():
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped([("a.txt", "1"), ("a.txt", "2"), ("a.txt", "3")])
    for records in (read(data, ".zip"), read(tarred([("a.txt", b"1"), ("./a.txt", b"2"), ("a.txt", b"3")]), ".tar")):
        assert texts(records) == {"!a.txt": "1", "!a.txt~2": "2", "!a.txt~3": "3"}


def test_names_in_the_encodings_of_old_archivers():
    name = "曹操的故事.txt"
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        placeholder = "n" * (len(name.encode("gb18030")) - 4) + ".txt"
        archive.writestr(placeholder, "1")
    data = sink.getvalue().replace(placeholder.encode(), name.encode("gb18030"))
    assert texts(read(data, ".zip")) == {f"!{name}": "1"}
    raw = name.encode("gb18030")
    tar = tarred({raw.decode("utf-8", "surrogateescape"): b"1"}, tarfile.GNU_FORMAT)
    assert raw in tar
    assert texts(read(tar, ".tar")) == {f"!{name}": "1"}
    odd = b"\xff\xfe.txt"
    (record,) = read(tarred({odd.decode("utf-8", "surrogateescape"): b"1"}, tarfile.GNU_FORMAT), ".tar")
    record.key.encode("utf-8")


SMALL = {".zip": zipped({"a.txt": b"one " * 9, "b.jsonl": b'"two"'}), ".tar": tarred({"a.txt": b"one", "b.md": b"two"})}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data())
def test_damage_anywhere_never_crashes(suffix, data):
    damaged = bytearray(SMALL[suffix][: data.draw(st.integers(0, len(SMALL[suffix])))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=5)):
        if damaged:
            damaged[at] = data.draw(st.integers(0, 255))
    try:
        assert len(read(bytes(damaged), suffix)) < 9
    except Unreadable:
        pass


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([".zip", ".tar"]), st.binary(max_size=2000))
def test_anything_may_be_called_an_archive(suffix, data):
    try:
        read(data, suffix)
    except Unreadable:
        pass
