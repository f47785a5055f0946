import bz2
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
import zstandard

from bimo.config import from_mapping
from bimo.errors import ConfigError, DataError
from bimo.text.document import Document, Skipped
from bimo.text.listing import guessed_suffix
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.recipe import CLEAN_NOTHING, Recipe
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
    assert source.skipped == [Skipped(".git/", "hidden")]
    assert source.total_bytes == source.bytes_done == 2 + 7 + 3 + 3
    assert source.name == str(tmp_path)


def test_what_is_hidden_is_told_and_not_read_unless_it_is_named(tmp_path):
    hidden = {".git/a/b.txt": "no", ".git/c.txt": "no", "deep/.cache/d.txt": "no", ".env": "KEY=1", "deep/.x.png": "?"}
    write(tmp_path, {"a.txt": "yes", **hidden})
    expected = [(".git/", 0), ("deep/.cache/", 0), (".env", 5), ("deep/.x.png", 1)]
    source = open_source(tmp_path, strict=True)
    assert [document.id for document in source] == ["a.txt"]
    assert source.skipped == [Skipped(name, "hidden", size=size) for name, size in expected]
    assert [document.text for document in open_source(tmp_path / ".env", tmp_path / ".git", tmp_path / "a.txt")] == [
        *("KEY=1", "no", "no", "yes")
    ]


def example(suffix, text):
    """A file of the format that holds one text."""
    if suffix in (".parquet", ".arrow", ".feather"):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table, sink = pyarrow.table({"text": [text]}), io.BytesIO()
        if suffix == ".parquet":
            parquet.write_table(table, sink)
        else:
            with pyarrow.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        return sink.getvalue()
    if suffix in (".zip", ".tar"):
        sink = io.BytesIO()
        data = text.encode("utf-8")
        if suffix == ".zip":
            with zipfile.ZipFile(sink, "w") as archive:
                archive.writestr("a.txt", data)
        else:
            with tarfile.open(fileobj=sink, mode="w") as archive:
                info = tarfile.TarInfo("a.txt")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return sink.getvalue()
    quoted = json.dumps(text, ensure_ascii=False)
    forms = {".csv": f"text\n{text}\n", ".tsv": f"text\n{text}\n", ".json": f"[{quoted}]"}
    return {**forms, ".jsonl": quoted, ".ndjson": quoted}.get(suffix, text).encode("utf-8")


def test_bad_files_are_skipped_with_a_reason_and_the_rest_is_read(tmp_path):
    whole = gzip.compress(os.urandom(99_999).hex().encode())
    write(
        tmp_path,
        {
            "binary.txt": b"PK\x03\x04\0\0\0",
            "chinese.txt": b"\xff",
            "empty.txt": b"",
            "spaces.txt": b" \n ",
            "cut.txt.gz": whole[:-999],
            "cut.jsonl.zst": zstandard.compress(b'"x"\n' * 99_999)[:-5],
            "picture.png": b"\x89PNG",
            "page.xml": b"<p>",
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
        assert found.pop("chinese.txt").startswith("its encoding cannot be told")
        assert found.pop("half.jsonl") == "the text is of type int, not a string (2 records, first line 2)"
        assert found == {
            "archive.tar.gz": "cut short: the archive ends too early",
            "binary.txt": "binary file",
            "cut.txt.gz": "cut short: the compressed data end too early (1 document before this was read)",
            "empty.txt": "empty",
            "gone.txt": "cannot be opened: No such file or directory",
            "good.txt": "the same file as again.txt",
            "loop/": "the same folder as ./",
            "page.xml": "unknown suffix .xml",
            "picture.png": "unknown suffix .png",
            "pipe.txt": "not a regular file",
            "spaces.txt": "empty",
        }
        assert sum(skipped.count for skipped in source.skipped if skipped.file == "half.jsonl") == 3


def test_files_that_vanish_or_may_not_be_read(tmp_path, monkeypatch):
    write(tmp_path, {"a.txt": "a", "b.txt": "b", "c.txt": "c"})
    source = open_source(tmp_path)
    (tmp_path / "a.txt").unlink()
    real = os.open

    def refuse(path, *arguments, **options):  # root, as in a container, may read everything
        if str(path).endswith("b.txt"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
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
    write(tmp_path, {"notes.log": "a", "page.xml": "<p>", "x.dat": b"\0"})
    assert [document.id for document in open_source(tmp_path / "notes.log")] == ["notes.log"]
    for name, reason in (("page.xml", "does not read .xml"), ("x.dat", "binary file")):
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


def test_prepared_text_inside_a_folder_is_not_read_twice(tmp_path):
    write(tmp_path, {"a.txt": "a"})
    recipe = from_mapping(Recipe, CLEAN_NOTHING, where="test")
    for unfinished in (False, True):
        prepare(open_source(tmp_path), tmp_path / "data", recipe)
        if unfinished:
            (tmp_path / "data" / "manifest.json").unlink()
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


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    write(tmp_path, {"a.jsonl": '"one"\n"two"', "b.txt": "b"})
    source = open_source(tmp_path)
    for document in source:
        if document.text == "one":
            write(tmp_path, {"a.jsonl": '"one"\n"two"\n"three"'})
    assert reasons(source) == {"a.jsonl": "changed while it was read: its documents may be torn"}


def test_a_file_that_becomes_a_pipe_does_not_block(tmp_path):
    write(tmp_path, {"a.txt": "a", "b.txt": "b"})
    source = open_source(tmp_path)
    (tmp_path / "a.txt").unlink()
    os.mkfifo(tmp_path / "a.txt")
    assert [document.id for document in source] == ["b.txt"]
    assert reasons(source) == {"a.txt": "cannot be opened: not a regular file"}


def test_strict_names_the_first_files_that_cannot_be_read(tmp_path):
    write(tmp_path, {**{f"{number}.bin": b"" for number in range(7)}, "good.txt": "good"})
    with pytest.raises(DataError, match=r"0\.bin: unknown suffix \.bin; 1\.bin.*4\.bin.*; and 2 more.*--strict"):
        open_source(tmp_path, strict=True)
    write(tmp_path / "in", {"a.txt": "a", "b.txt": b"\0\1\2", "c.txt": "c"})
    (tmp_path / "in" / "same.txt").symlink_to(tmp_path / "in" / "a.txt")
    source = open_source(tmp_path / "in", strict=True)
    with pytest.raises(DataError, match=r"b\.txt: binary file"):
        list(source)
    assert [document.id for document in open_source(tmp_path / "in")] == ["a.txt", "c.txt"]


STDIN = """
import sys
import tarfile
import zipfile
from bimo.text.source import open_source
source = open_source(*sys.argv[1:])
assert [document.text for document in source] == [document.text for document in source]
print([(document.id, document.text) for document in source], source.skipped)
"""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("笔墨\n".encode(), [("stdin.txt", "笔墨\n")]),
        (b'{"text": "a"}\n{"text": "b"}', [("stdin.jsonl:1", "a"), ("stdin.jsonl:2", "b")]),
        (gzip.compress(b'\n[{"text": "a"}]'), [("stdin.json.gz:0", "a")]),
        (zstandard.compress("却说曹操引兵追赶刘备".encode("gb18030")), [("stdin.txt.zst", "却说曹操引兵追赶刘备")]),
        (example(".zip", "zipped"), [("stdin.zip!a.txt", "zipped")]),
        (bz2.compress(example(".tar", "in a tar")), [("stdin.tar.bz2!a.txt", "in a tar")]),
    ],
    ids=["txt", "jsonl", "json.gz", "txt.zst", "zip", "tar.bz2"],  # not the bytes: some hold the time
)
def test_standard_input_is_read_as_what_it_is(data, expected):
    called = subprocess.run([sys.executable, "-c", STDIN, "-"], input=data, capture_output=True, check=True)
    assert called.stdout.decode("utf-8") == f"{expected} []\n"


def test_a_file_that_is_compressed_for_ever_is_no_text():
    """Its suffix is guessed from its bytes, and those behind it, but no further."""
    assert guessed_suffix(gzip.compress(gzip.compress(gzip.compress(b"{}")))) == ".gz.gz"
    assert guessed_suffix(gzip.compress(b"{}")[:9]) == ".txt.gz"


def test_standard_input_beside_files(tmp_path):
    write(tmp_path, {"a.txt": "a"})
    words = [sys.executable, "-c", STDIN, "-", str(tmp_path), "-"]
    called = subprocess.run(words, input=b"piped", capture_output=True, check=True)
    assert called.stdout.decode() == f"[('stdin.txt', 'piped'), ('{tmp_path.as_posix()}/a.txt', 'a')] []\n"


def test_nothing_in_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match=r"standard input.*bimo prepare -"):
        open_source("-")


def test_folders_of_hugging_face_datasets(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    saved = tmp_path / "saved"
    for split, texts in (("test", ["c"]), ("train", ["a", "b"])):
        folder = saved / split
        folder.mkdir(parents=True)
        table = pyarrow.table({"text": texts})
        for name in ("data-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"):
            with pyarrow.ipc.new_stream(folder / name, table.schema) as writer:
                writer.write_table(table)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        write(folder, {"state.json": json.dumps(state), "dataset_info.json": "{}"})
    write(saved, {"dataset_dict.json": json.dumps({"splits": ["train", "test"]})})
    source = open_source(saved)
    assert [(document.id, document.text) for document in source] == [
        ("test/data-00000-of-00001.arrow:0", "c"),
        ("train/data-00000-of-00001.arrow:0", "a"),
        ("train/data-00000-of-00001.arrow:1", "b"),
    ]
    assert source.skipped == []
    hub = write(tmp_path / "hub", {"data/train-0.parquet": example(".parquet", "d"), "dataset_infos.json": "{}"})
    write(hub, {"mine/state.json": '["mine"]'})
    source = open_source(hub)
    assert [document.text for document in source] == ["d", "mine"]
    assert source.skipped == []
