import json

import pytest

from bimo.errors import DataError
from bimo.text import store
from bimo.text.prepare.prepare import prepare
from bimo.text.source import open_source
from bimo.text.split import split_source


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.txt").write_text(f"document {number}\n笔墨\u2028" * (number + 1), encoding="utf-8")
    (folder / "x.png").write_bytes(b"\0")
    return folder


def test_what_is_prepared_is_read_back(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 100)
    source = open_source(folder)
    manifest = prepare(source, tmp_path / "deep" / "out")
    back = open_source(tmp_path / "deep" / "out")
    assert list(back) == list(source)
    assert len(manifest["shards"]) == len(back.files) > 2
    assert manifest["documents"] == 7
    assert manifest["bytes"] == sum(len(document.text.encode("utf-8")) for document in source)
    assert manifest["skipped"] == [{"file": "x.png", "reason": "unknown suffix .png", "count": 1}]
    assert manifest["data_hash"] == split_source(source, seed=1).data_hash == split_source(back, seed=2).data_hash
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert back.bytes_done == back.total_bytes


def test_a_second_time_nothing_is_done_unless_the_files_changed(folder, tmp_path):
    out = tmp_path / "out"
    first = prepare(open_source(folder), out)
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    second = prepare(open_source(folder), out)
    assert (first.pop("unchanged"), second.pop("unchanged")) == (False, True)
    assert first == second
    (folder / "3.txt").write_text("something else")
    with pytest.raises(DataError, match="unchanged files"):
        prepare(open_source(folder), out)
    assert written == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_a_prepared_folder_can_be_prepared_again(folder, tmp_path):
    manifest = prepare(open_source(folder), tmp_path / "one")
    again = prepare(open_source(tmp_path / "one"), tmp_path / "two")
    assert again["data_hash"] == manifest["data_hash"]
    assert list(open_source(tmp_path / "one")) == list(open_source(tmp_path / "two"))


def test_an_out_that_holds_something_else_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    prepare(open_source(folder), out)  # an empty folder is fine
    for name in ("file", "full"):
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / "mine.txt").write_text("mine")
        (tmp_path / "file").write_text("mine")
        with pytest.raises(DataError, match="exists"):
            prepare(open_source(folder), tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(DataError, match="cannot be written"):
        prepare(open_source(folder), tmp_path / "file" / "out")


def test_a_failure_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bimo.text.store.os.fsync", full)
    with pytest.raises(DataError, match=r"cannot be written.*No space left"):
        prepare(open_source(folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_to_prepare(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no readable text"):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "in" / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a.txt: its encoding cannot be told"):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def damage_cut(out):
    path = out / store.FIRST_SHARD
    path.write_bytes(path.read_bytes()[:-3])
    return path.name


def damage_byte(out):
    path = out / store.FIRST_SHARD
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    return path.name


def damage_checksum(out):
    manifest = json.loads((out / store.MANIFEST).read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    (out / store.MANIFEST).write_text(json.dumps(manifest))
    return store.FIRST_SHARD


def damage_missing(out):
    manifest = json.loads((out / store.MANIFEST).read_text())
    manifest["shards"].append({"file": "documents-00001.jsonl.zst", "size": 7, "sha256": ""})
    (out / store.MANIFEST).write_text(json.dumps(manifest))
    return "documents-00001.jsonl.zst"


def damage_manifest(out):
    (out / store.MANIFEST).write_text((out / store.MANIFEST).read_text()[:-30])
    return store.MANIFEST


def damage_key(out):
    (out / store.MANIFEST).write_text(json.dumps({"format": store.FORMAT, "shards": [7]}))
    return store.MANIFEST


def damage_format(out):
    (out / store.MANIFEST).write_text('{"format": "bimo-documents-99"}')
    return store.MANIFEST


@pytest.mark.parametrize(
    "damage",
    [damage_cut, damage_byte, damage_checksum, damage_missing, damage_manifest, damage_key, damage_format],
)
def test_damage_is_an_error_that_names_the_file(folder, tmp_path, damage):
    out = tmp_path / "out"
    prepare(open_source(folder), out)
    name = damage(out)
    with pytest.raises(DataError, match=name):
        list(open_source(out))
