import gzip
import io
import json
import os
import tarfile
import zipfile

import pytest
import zstandard

from bimo.errors import ConfigError, DataError
from bimo.text import source as source_module
from bimo.text.document import Document
from bimo.text.prepare.prepare import prepare
from bimo.text.readers import READERS
from bimo.text.source import open_source


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return folder


def reasons(source):
    return {skipped.file: skipped.reason for skipped in source.skipped}


def test_a_folder_is_read_in_a_stable_order_again_and_again(tmp_path):
    write(tmp_path, {"b.txt": "bee", "a/z.md": "zed", "a/c.jsonl": '"x"\n"y"', ".git/config.txt": "no", "README": "me"})
    source = open_source(tmp_path)
    expected = [
        Document("README", "me", "README"),
        Document("a/c.jsonl:1", "x", "a/c.jsonl"),
        Document("a/c.jsonl:2", "y", "a/c.jsonl"),
        Document("a/z.md", "zed", "a/z.md"),
        Document("b.txt", "bee", "b.txt"),
    ]
    assert list(source) == list(source) == expected
    assert source.skipped == []
    assert source.total_bytes == source.bytes_done == 2 + 7 + 3 + 3
    assert source.name == str(tmp_path)


def one_document(suffix):
    """A file of this format that holds 笔墨."""
    made = io.BytesIO()
    if suffix in (".parquet", ".arrow", ".feather"):
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"text": ["笔墨"]})
        if suffix == ".parquet":
            pytest.importorskip("pyarrow.parquet").write_table(table, made)
        else:
            pytest.importorskip("pyarrow.feather").write_feather(table, made)
    elif suffix == ".zip":
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("a.txt", "笔墨")
    elif suffix == ".tar":
        with tarfile.open(fileobj=made, mode="w") as archive:
            member = tarfile.TarInfo("a.txt")
            member.size = 6
            archive.addfile(member, io.BytesIO("笔墨".encode()))
    else:
        table, array = "text\n笔墨\n", '["笔墨"]'
        contents = {".csv": table, ".tsv": table, ".json": array, ".jsonl": '"笔墨"', ".ndjson": '"笔墨"'}
        made.write(contents.get(suffix, "笔墨").encode("utf-8"))
    return made.getvalue()


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_every_reader_reads_gz_and_zst_too(tmp_path, suffix):
    data = one_document(suffix)
    write(
        tmp_path, {f"a{suffix}": data, f"b{suffix}.gz": gzip.compress(data), f"C{suffix}.ZST": zstandard.compress(data)}
    )
    source = open_source(tmp_path)
    assert [document.text for document in source] == ["笔墨"] * 3, source.skipped


def test_bad_files_are_skipped_with_a_reason_and_the_rest_is_read(tmp_path):
    whole = gzip.compress(os.urandom(99_999).hex().encode())
    write(
        tmp_path,
        {
            "binary.txt": b"PK\x03\x04\0\0\0",
            "chinese.txt": b"\x81\xfe\xc0\x81" * 9,
            "empty.txt": b"",
            "spaces.txt": b" \n ",
            "cut.txt.gz": whole[:-999],
            "cut.jsonl.zst": zstandard.compress(b'"x"\n' * 99_999)[:-5],
            "picture.png": b"\x89PNG",
            "page.html": b"<p>",
            "archive.tar.gz": b"",
            "half.jsonl": '"\\ud83d"\n{"text": 3}\n{"text": 4}\n"good"',
            "good.txt": "good",
        },
    )
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again.txt").symlink_to(tmp_path / "good.txt")
    source = open_source(tmp_path)
    for _ in range(2):
        assert [document.id for document in source if "cut" not in document.id] == ["again.txt", "half.jsonl:4"]
        found = reasons(source)
        assert found.pop("cut.jsonl.zst").startswith("cut short")
        assert found.pop("cut.txt.gz").endswith("too early (the 1 documents before this were kept)")
        assert found.pop("chinese.txt").startswith("its encoding cannot be told")
        assert found.pop("half.jsonl") == "the text is of type int, not a string (2 records, first line 2)"
        assert found == {
            "archive.tar.gz": "cut short: the archive ends too early",
            "binary.txt": "binary file",
            "empty.txt": "empty",
            "gone.txt": "cannot be opened: No such file or directory",
            "good.txt": "the same file as again.txt",
            "page.html": "unknown suffix .html",
            "picture.png": "unknown suffix .png",
            "pipe.txt": "not a regular file",
            "spaces.txt": "empty",
        }
        assert sum(skipped.count for skipped in source.skipped if skipped.file == "half.jsonl") == 3


def test_files_that_vanish_or_may_not_be_read(tmp_path, monkeypatch):
    write(tmp_path, {"a.txt": "a", "b.txt": "b", "c.txt": "c"})
    source = open_source(tmp_path)
    (tmp_path / "a.txt").unlink()
    real = source_module.open_regular

    def refuse(path):  # root, as in a container, may read everything
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(source_module, "open_regular", refuse)
    assert [document.id for document in source] == ["c.txt"]
    assert reasons(source) == {
        "a.txt": "cannot be opened: No such file or directory",
        "b.txt": "cannot be opened: Permission denied",
    }


def test_different_reasons_of_one_file_are_bounded(tmp_path):
    lines = [json.dumps({f"key{number}": "x"}) for number in range(100)]
    source = open_source(write(tmp_path, {"a.jsonl": "\n".join(lines)}))
    assert list(source) == []
    assert len(source.skipped) == 21
    assert sum(skipped.count for skipped in source.skipped) == 100


def test_a_single_file_is_read_whatever_its_suffix(tmp_path):
    write(tmp_path, {"notes.log": "a", "page.html": "<p>", "x.dat": b"\0"})
    assert [document.id for document in open_source(tmp_path / "notes.log")] == ["notes.log"]
    for name, reason in (("page.html", "does not read .html"), ("x.dat", "binary file")):
        source = open_source(tmp_path / name)
        assert list(source) == []
        assert reason in reasons(source)[name]


def test_several_inputs_are_chained_with_distinct_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, {"one/a.txt": "1", "two/a.txt": "2", "b.txt": "3"}))
    source = open_source("two", "b.txt", "one", "two/a.txt")
    assert [(document.id, document.text) for document in source] == [
        ("two/a.txt", "2"),
        ("b.txt", "3"),
        ("one/a.txt", "1"),
    ]
    assert source.name == "two, b.txt, one, two/a.txt"
    assert reasons(source) == {"two/a.txt": "the same file as two/a.txt"}


def test_options_reach_the_readers(tmp_path):
    write(tmp_path, {"a.jsonl": '{"body": "中"}'.encode("gb18030")})
    source = open_source(tmp_path, text_column="body", encoding="gb18030")
    assert [document.text for document in source] == ["中"]
    with pytest.raises(ConfigError):
        open_source(tmp_path, encoding="utf-99")


def test_names_that_are_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"neither a path nor a corpus.*Did you mean 'shakespeare'"):
        open_source("shakespear")
    write(tmp_path, {"shakespeare/a.txt": "mine"})
    assert [document.text for document in open_source("shakespeare")] == ["mine"]


def test_a_name_that_is_not_utf8_on_disk(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff.txt")).write_text("a")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert [document.id for document in open_source(tmp_path)] == ["\\xff.txt"]


def test_nothing_readable_says_what_was_skipped(tmp_path):
    write(tmp_path, {f"{name}.bin": b"" for name in "abcd"})
    source = open_source(tmp_path)
    assert list(source) == []
    assert "a.bin: unknown suffix .bin; b.bin: unknown suffix .bin; c.bin: unknown suffix .bin; ..." in str(
        source.nothing_readable()
    )


def test_prepared_text_inside_a_folder_is_not_read_twice(tmp_path, loose):
    write(tmp_path, {"a.txt": "a"})
    prepare(open_source(tmp_path), tmp_path / "data", loose)
    source = open_source(tmp_path)
    assert [document.id for document in source] == ["a.txt"]
    assert "prepared text" in reasons(source)["data/"]


def test_progress_ends_at_the_total(tmp_path):
    write(tmp_path, {f"{number}.txt": "x" * 7 for number in range(5)})
    calls = []
    assert len(list(open_source(tmp_path).watched(lambda *call: calls.append(call)))) == 5
    assert calls[-1] == (35, 35)
    assert calls == sorted(calls)
    assert len(calls) > 2
