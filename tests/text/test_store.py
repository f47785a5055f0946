import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import DataError
from bimo.text import store
from bimo.text.document import KINDS, Document
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


def test_what_is_prepared_is_read_back(folder, tmp_path, loose, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 100)
    source = open_source(folder)
    manifest = prepare(source, tmp_path / "deep" / "out", loose)
    back = open_source(tmp_path / "deep" / "out")
    found = [(one.id, one.text, one.source) for one in back]
    assert found == [(one.id, one.text.replace("\u2028", "\n"), one.source) for one in source]
    assert len(manifest["shards"]) == len(back.files) > 2
    assert manifest["documents"] == 7
    assert manifest["bytes"] == sum(len(document.text.encode("utf-8")) for document in back)
    assert manifest["skipped"] == [{"file": "x.png", "reason": "unknown suffix .png", "count": 1, "size": 1}]
    assert manifest["data_hash"] == split_source(back, seed=2).data_hash
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert back.bytes_done == back.total_bytes


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
def test_damage_is_an_error_that_names_the_file(folder, tmp_path, loose, damage):
    out = tmp_path / "out"
    prepare(open_source(folder), out, loose)
    name = damage(out)
    with pytest.raises(DataError, match=name):
        list(open_source(out))


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.text(alphabet='ab\\"\n\t\x00\x1f\x7f中é\u2028'),
    st.sampled_from(KINDS),
    st.sampled_from(["", "en"]),
    st.sampled_from(["", "2024-01-31T23:59:59Z"]),
)
def test_a_line_is_what_json_makes_of_it(text, kind, language, time):
    document = Document('a"\n中', text, "\\b", kind, language, time)
    record = {"id": document.id, "text": text, "source": document.source}
    record |= {name: value for name in store.FURTHER if (value := getattr(document, name)) not in ("", "prose")}
    line = store.line_of(document, text.encode("utf-8"))
    assert line == json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
