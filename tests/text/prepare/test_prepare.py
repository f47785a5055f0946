import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bimo.config import from_mapping
from bimo.errors import BimoError, ConfigError, DataError
from bimo.text import source as source_module
from bimo.text.prepare import part, parts, workers
from bimo.text.prepare import prepare as module
from bimo.text.prepare.ledger import LEDGER, read_rows
from bimo.text.prepare.part import make_part
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.recipe import Recipe
from bimo.text.source import open_source

OFF = {"on": False}
RECIPES = [
    {},
    {"clean": {"quality": OFF, "repetition": OFF}},
    {"clean": {"quality": OFF}, "duplicates": {"near": False}, "arrangement": {"shuffle": True}},
    {"clean": dict.fromkeys(("normalise", "boilerplate", "quality", "repetition", "pii"), OFF)},
]
LINES = [
    '{"text": "The king wrote a letter to the old harbour, and the moon was with him."}',
    "{broken",
    '{"text": "却说曹操引兵而来，不知道明天会怎样。"}',
    '"Write to jane.doe@example.com before the ships come back."',
    "",
    '{"other": 1}',
    '{"text": ""}',
    "[1]",
    '{"text": "The moon was with him, and the king wrote a letter to the old harbour."}',
    "\r",
]
PIECES = [
    b"The king wrote a letter to the old harbour, and the moon was with him. ",
    "却说曹操引兵而来，不知道明天会怎样。".encode(),
    b"def add(a, b):\n    return a + b\n",
    b"Write to jane.doe@example.com or call +1 212 555 0187.\r\n",
    b"<p>We use cookies. <a href='/'>Accept all</a></p>\n",
    b'{"text": "good night, good night", "time": "2020"}\n',
    b'{"text": "\\ud800", "\\udfff": 1}\n',
    b"{broken\n",
    "cafe\u0301 ﬁne ｆｕｌｌ １２３ \u200b\x07\n\n\n".encode(),
    "却说曹操".encode("gb18030"),
    b"a a a a a a a a a a a a\n",
    b"\n \t\n",
    b"\0\x01\x02\xff",
]


def kept(out):
    return [(document.id, document.text) for document in open_source(out)]


def backwards(tasks):
    return map(make_part, reversed(tasks))


@st.composite
def folders(draw):
    content = st.lists(st.sampled_from(PIECES), max_size=9).map(b"".join)
    files = draw(st.lists(st.tuples(st.sampled_from([".txt", ".jsonl", ".py", ".csv", ".md"]), content), max_size=6))
    return {f"{number}{suffix}": data for number, (suffix, data) in enumerate(files)}


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(folders(), st.sampled_from(RECIPES), st.sampled_from([1, 200, 1 << 20]))
@example({"a.txt": PIECES[0] * 9, "b.txt": PIECES[0] * 9, "c.jsonl": b"".join(PIECES[5:8]), "d.py": b""}, RECIPES[1], 1)
def test_every_byte_is_accounted_for(files, recipe, size):
    recipe = from_mapping(Recipe, recipe, where="test")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TASK_BYTES", size)
        folder, out = Path(name) / "in", Path(name) / "out"
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        source = open_source(folder)
        documents = {document.id: document.text.encode() for document in source}
        try:
            manifest = prepare(source, out, recipe)
        except DataError:  # nothing was kept
            assert not list(out.glob("documents*"))
            return
        rows = list(read_rows(out / LEDGER))
        for row in rows:
            assert row.bytes_in == row.bytes_out + row.bytes_dropped + sum(taken for _, taken in row.changes), row
            assert row.kept == (row.copies == 1) and (row.kept or (row.reason and row.step and not row.bytes_out))
        read = {row.id: row for row in rows if row.hash}
        assert read.keys() == documents.keys()
        assert all(read[id].bytes_in == len(text) for id, text in documents.items())
        assert all(read[id].hash == hashlib.blake2b(text, digest_size=16).hexdigest() for id, text in documents.items())
        for id, text in kept(out):
            assert read[id].bytes_out == len(text.encode())
        assert sum(row.bytes_out for row in rows) == manifest["bytes"]
        assert sum(row.copies for row in rows) == manifest["documents"] == len(kept(out))
        assert {row.file for row in rows} == set(files)
        unread = [row for row in rows if not row.hash]
        assert len(unread) == sum(one["count"] for one in manifest["skipped"])
        by_file = {row.file for row in rows if row.hash}
        size = sum(len(data) for file, data in files.items() if file not in by_file)
        assert sum(row.bytes_in for row in unread) == size


@pytest.mark.parametrize("size", [1, 100, 1_000, 3_000])
def test_how_the_work_is_cut_and_in_which_order_it_is_done_changes_nothing(
    folder, tmp_path, loose, written, monkeypatch, size
):
    prepare(open_source(folder), tmp_path / "one", loose)
    monkeypatch.setattr(module, "TASK_BYTES", size)
    prepare(open_source(folder), tmp_path / "two", loose, run=backwards)
    assert len(list((tmp_path / "one" / "parts").iterdir())) == 1 < len(list((tmp_path / "two" / "parts").iterdir()))
    assert written(tmp_path / "one") == written(tmp_path / "two")


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(LINES), min_size=9, max_size=60), st.integers(1, 400))
@example([line for line in LINES for _ in range(3)], 99)
@example(LINES[1:2] * 30, 1)
def test_slices_of_a_large_file_are_one_file_in_all_that_is_written(lines, size):
    lines = [LINES[0], *lines]  # a file that begins blank is not cut
    recipe = from_mapping(Recipe, RECIPES[1], where="test")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        out = Path(name)
        (out / "in").mkdir()
        (out / "in" / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (out / "in" / "b.txt").write_text("The king wrote a letter to the old harbour.")
        prepare(open_source(out / "in"), out / "one", recipe)
        patch.setattr(module, "TASK_BYTES", size)
        prepare(open_source(out / "in"), out / "two", recipe, run=backwards)
        count = len(list((out / "two" / "parts").iterdir()))
        assert count > 2 or len("\n".join(lines).encode()) < 6 * size + 500
        for path in (path for path in (out / "one").iterdir() if path.is_file()):
            assert path.read_bytes() == (out / "two" / path.name).read_bytes(), path.name


def test_two_processes_write_what_one_does(folder, tmp_path, loose, written, monkeypatch):
    prepare(open_source(folder), tmp_path / "one", loose)
    monkeypatch.setattr(module, "TASK_BYTES", 1_000)
    monkeypatch.setattr(workers, "ALONE_BYTES", 0)
    seen = []
    prepare(open_source(folder), tmp_path / "two", loose, workers=2, watch=lambda done: seen.append(done.bytes))
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert seen == sorted(seen) and len(seen) > 5 and seen[-1] == open_source(folder).total_bytes


def test_after_an_interruption_the_rest_is_done(folder, tmp_path, loose, written, monkeypatch):
    monkeypatch.setattr(module, "TASK_BYTES", 1_000)
    prepare(open_source(folder), tmp_path / "whole", loose)
    count = len(list((tmp_path / "whole" / "parts").iterdir()))
    assert count > 4
    for after in range(count + 1):
        out = tmp_path / f"out{after}"

        def interrupted(tasks, after=after):
            yield from map(make_part, tasks[:after])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(open_source(folder), out, loose, run=interrupted)
        (out / "parts" / ".half.tmp").mkdir()  # as a process that was killed leaves it
        (out / "parts" / "half").mkdir()
        made = []
        prepare(
            open_source(folder), out, loose, run=lambda tasks, made=made: map(make_part, made.extend(tasks) or tasks)
        )
        assert len(made) == count - after
        assert written(out) == written(tmp_path / "whole")
        assert len(list((out / "parts").iterdir())) == count


def test_an_interruption_while_it_is_put_together(folder, tmp_path, loose, written, monkeypatch):
    prepare(open_source(folder), tmp_path / "whole", loose)
    out = tmp_path / "out"
    for broken in ("decide", "write_shards", "write_ledger"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, broken, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            prepare(open_source(folder), out, loose)
        assert not list(out.glob("documents*")) and not list(out.glob(".assembling*"))
    replace, moved = module.os.replace, []

    def once(old, new):
        if Path(new).name == "ledger.parquet":
            raise KeyboardInterrupt
        moved.append(new)
        replace(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.os, "replace", once)
        prepare(open_source(folder), out, loose)
    assert moved and not (out / "manifest.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(part, "Source", None)  # nothing is read again
        prepare(open_source(folder), out, loose)
    assert written(out) == written(tmp_path / "whole")


@pytest.fixture
def reads(monkeypatch):
    """The names of files, as they are opened to be read."""
    opened = []
    original = source_module.open_regular
    monkeypatch.setattr(source_module, "open_regular", lambda path: opened.append(path.name) or original(path))
    return opened


def test_added_files_are_all_that_is_read(folder, tmp_path, loose, written, reads):
    prepare(open_source(folder), tmp_path / "whole", loose)
    later = ["1.txt", "deep/中3.md", "records.jsonl", "picture.png", "empty.txt"]
    out = tmp_path / "out"
    for name in later:
        shutil.move(folder / name, tmp_path / Path(name).name)
    prepare(open_source(folder), out, loose)
    for name in later:  # one by one, so that old and new files alternate
        shutil.move(tmp_path / Path(name).name, folder / name)
        reads.clear()
        prepare(open_source(folder), out, loose)
        assert reads == ([Path(name).name] if name != "picture.png" else [])
    assert written(out) == written(tmp_path / "whole")
    reads.clear()
    assert prepare(open_source(folder), out, loose)["unchanged"] and not reads


def test_changed_and_removed_files(folder, tmp_path, loose, written, reads, monkeypatch):
    monkeypatch.setattr(module, "TASK_BYTES", 1)
    out = tmp_path / "out"
    prepare(open_source(folder), out, loose)
    (folder / "0.txt").write_text("Something else is written here, in a text of its own.")
    (folder / "1.txt").unlink()
    (folder / "picture.png").unlink()
    reads.clear()
    assert not prepare(open_source(folder), out, loose)["unchanged"]
    assert reads == ["0.txt"]
    ids = [id for id, _ in kept(out)]
    assert "0.txt" in ids and "1.txt" not in ids
    prepare(open_source(folder), tmp_path / "anew", loose)
    assert written(out) == written(tmp_path / "anew")


def test_inputs_in_another_order(folder, tmp_path, loose, written):
    one, two = folder / "deep", folder / "records.jsonl"
    prepare(open_source(two, one), tmp_path / "anew", loose)
    prepare(open_source(one, two), tmp_path / "out", loose)
    prepare(open_source(two, one), tmp_path / "out", loose)
    assert written(tmp_path / "out") == written(tmp_path / "anew")


def test_thousands_of_small_files_do_not_open_the_ledger_anew_for_each(tmp_path, loose, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(300):
        (tmp_path / "in" / f"{number}.txt").write_text(f"Number {number} is a text of its own.")
    calls = []
    original = parts.LedgerReader
    monkeypatch.setattr(parts, "LedgerReader", lambda *a: calls.append(a) or original(*a))
    assert prepare(open_source(tmp_path / "in"), tmp_path / "out", loose)["documents"] > 0
    assert len(calls) == 2


def test_a_finished_folder_of_another_recipe_is_not_written_over(folder, tmp_path, loose, written):
    prepare(open_source(folder), tmp_path / "out", loose)
    before = written(tmp_path / "out")
    other = from_mapping(Recipe, RECIPES[2], where="test")
    with pytest.raises(DataError, match=r"another way.*clean.repetition.on: False -> True"):
        prepare(open_source(folder), tmp_path / "out", other)
    assert written(tmp_path / "out") == before


def test_parts_of_another_recipe_or_version_are_made_anew(folder, tmp_path, loose, written):
    def interrupted(tasks):
        yield from map(make_part, tasks)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(open_source(folder), out, from_mapping(Recipe, RECIPES[3], where="test"), run=interrupted)
    (made,) = (out / "parts").iterdir()
    for damage in ('{"new": 1}', "[]", "{"):
        other = made.with_name(f"other{len(damage)}")
        shutil.copytree(made, other)
        (other / "part.json").write_text(damage)
    prepare(open_source(folder), out, loose)
    prepare(open_source(folder), tmp_path / "anew", loose)
    assert written(out) == written(tmp_path / "anew")
    assert len(list((out / "parts").iterdir())) == 1


def test_somebody_elses_folder_is_left_alone(folder, tmp_path, loose):
    for name in ("recipe.json", "mine.txt"):
        out = tmp_path / name.partition(".")[0]
        (out / "parts" / "mine").mkdir(parents=True)
        (out / name).write_text('{"eggs": 2}')
        with pytest.raises(DataError, match="exists"):
            prepare(open_source(folder), out, loose)
        assert (out / name).read_text() == '{"eggs": 2}' and (out / "parts" / "mine").exists()
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(DataError, match="exists|cannot be written"):
            prepare(open_source(folder), out, loose)


def test_two_calls_at_once_do_not_write_to_one_folder(folder, tmp_path, loose):
    def meanwhile(tasks):
        with pytest.raises(DataError, match="written by another call"):
            prepare(open_source(folder), tmp_path / "out", loose)
        yield from map(make_part, tasks)

    assert not prepare(open_source(folder), tmp_path / "out", loose, run=meanwhile)["unchanged"]
    assert prepare(open_source(folder), tmp_path / "out", loose)["unchanged"]


@pytest.mark.parametrize("where", ["part", "shards", "ledger"])
def test_a_full_disk(folder, tmp_path, loose, written, monkeypatch, where):
    def full(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    monkeypatch.setattr(module, "TASK_BYTES", 1_000)
    calls = []

    def filling(file):
        calls.append(file)
        return full() if where == "part" and len(calls) > 25 else fsync(file)

    fsync = part.os.fsync
    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"cannot be written.*No space left"):
        patch.setattr(part.os, "fsync", filling)
        if where != "part":
            patch.setattr(module, f"write_{where}", full)
        prepare(open_source(folder), out, loose)
    names = sorted(path.name for path in (out / "parts").iterdir())
    assert len(names) > 0 and not [name for name in names if name.startswith(".")]
    assert not (out / "manifest.json").exists() and not list(out.glob(".assembling*"))
    tasks = []
    prepare(open_source(folder), out, loose, run=lambda left: map(make_part, tasks.extend(left) or left))
    assert not set(names) & {task.name for task in tasks}
    prepare(open_source(folder), tmp_path / "whole", loose)
    assert written(out) == written(tmp_path / "whole")


def test_an_impossible_way_of_reading_is_refused_before_anything_is_written(folder, tmp_path):
    for reading in ({"encoding": "utf-9"}, {"template": "{a"}):
        with pytest.raises(ConfigError, match="encoding|template"):
            prepare(open_source(folder), tmp_path / "out", from_mapping(Recipe, {"reading": reading}, where="test"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_kept(tmp_path, loose):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no readable text"):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "in" / "a.txt").write_text("Short.")
    (tmp_path / "in" / "b.txt").write_text("Very short.")
    with pytest.raises(DataError, match=r"Nothing of .* was kept.*2 x quality: too few words.*clean.quality.on=false"):
        prepare(open_source(tmp_path / "in"), tmp_path / "out")
    assert prepare(open_source(tmp_path / "in"), tmp_path / "out", loose)["documents"] == 2


def test_under_strict_a_file_that_cannot_be_read_is_an_error(folder, tmp_path, loose):
    (folder / "picture.png").unlink()
    prepare(open_source(folder), tmp_path / "out", loose)
    for out in ("out", "new"):
        with pytest.raises(DataError, match=r"binary.txt: binary file.*--strict"):
            prepare(open_source(folder, strict=True), tmp_path / out, loose)
    (folder / "binary.txt").unlink()
    prepare(open_source(folder, strict=True), tmp_path / "new", loose)
    (folder / "broken.jsonl").write_text("{\n{\n")
    with pytest.raises(DataError, match=r"broken.jsonl: not JSON \(2 records, first line 1\)"):
        prepare(open_source(folder, strict=True), tmp_path / "new", loose)


def test_a_prepared_folder_is_prepared_again_with_all_that_is_known(folder, tmp_path, loose):
    prepare(open_source(folder), tmp_path / "one", loose)
    prepare(open_source(tmp_path / "one"), tmp_path / "two", loose)
    assert list(open_source(tmp_path / "one")) == list(open_source(tmp_path / "two"))
    rows = {row.id: row for row in read_rows(tmp_path / "two" / LEDGER)}
    assert rows["1.py"].kind == "code" and rows["1.py"].file == "1.py"


def test_bimo_errors_of_a_worker_arrive_whole():
    error = DataError("It is wrong.", expected="this", got="that", fix="Do so.")
    cls, arguments, state = error.__reduce__()
    back = cls(*arguments)
    vars(back).update(state)
    assert isinstance(back, BimoError) and str(back) == str(error) and back.fix == error.fix


def test_the_manifest_says_what_was_read(folder, tmp_path, loose):
    manifest = prepare(open_source(folder), tmp_path / "out", loose)
    files = [one["file"] for one in manifest["skipped"]]
    assert files == ["picture.png", "binary.txt", "empty.txt", "records.jsonl", "records.jsonl"]
    examples = json.loads((tmp_path / "out" / "examples.json").read_text(encoding="utf-8"))
    assert all(0 < len(some) <= part.EXAMPLES for some in examples.values())


def test_a_folder_inside_its_own_input_is_no_input(folder, tmp_path, loose):
    out = folder / "out"
    first = prepare(open_source(folder, out=out), out, loose)
    assert prepare(open_source(folder, out=out, strict=False), out, loose) == first | {"unchanged": True}
    with pytest.raises(DataError, match="read and written at once"):
        open_source(out, out=out)


def test_files_that_are_not_tried_count_with_all_their_bytes(folder, tmp_path, loose):
    (folder / "loop").symlink_to(folder)
    manifest = prepare(open_source(folder), tmp_path / "out", loose)
    rows = {row.id: row for row in read_rows(tmp_path / "out" / LEDGER)}
    assert (rows["picture.png"].bytes_in, rows["picture.png"].bytes_dropped) == (5, 5)
    assert rows["loop/"].reason == "the same folder as ./"
    funnel = manifest["funnel"]
    assert (funnel["documents_in"], funnel["bytes_in"]) == (len(rows), sum(row.bytes_in for row in rows.values()))


def test_a_mixture_of_nothing(folder, tmp_path):
    recipe = from_mapping(Recipe, {"clean": {"quality": OFF}, "arrangement": {"target_bytes": 1}}, where="test")
    with pytest.raises(ConfigError, match="mixture leaves no text"):
        prepare(open_source(folder), tmp_path / "out", recipe)
    for wrong in ({"arrangement": {"target_bytes": -1}}, {"duplicates": {"similarity": 7.0}}):
        with pytest.raises(ConfigError, match="is wrong"):
            prepare(open_source(folder), tmp_path / "out", from_mapping(Recipe, wrong, where="test"))


def test_nothing_readable_is_told_before_there_is_too_little_to_split(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG")
    recipe = from_mapping(Recipe, {"arrangement": {"split_by": "document"}}, where="test")
    with pytest.raises(DataError, match=r"no readable text.*a\.png"):
        prepare(open_source(tmp_path / "in"), tmp_path / "out", recipe)


def test_of_two_copies_the_cleaner_one_is_kept_though_it_is_shorter(tmp_path, texts):
    folder, article = tmp_path / "in", texts.english(40)
    folder.mkdir()
    banner = "We use cookies to improve your experience. Accept all cookies.\n\n"
    (folder / "a.txt").write_text(banner * 20 + article + " Good night.")
    (folder / "b.txt").write_text(article)
    prepare(open_source(folder), tmp_path / "out", workers=1)
    banners, plain = read_rows(tmp_path / "out" / LEDGER)
    assert plain.kept and banners.copy_of == "b.txt"
    assert plain.bytes_out < banners.bytes_dropped < banners.bytes_in / 1.2


def test_the_ledger_says_where_a_document_begins(folder, tmp_path, loose, monkeypatch):
    monkeypatch.setattr(module, "TASK_BYTES", 150)  # the records are read in slices
    prepare(open_source(folder), tmp_path / "out", loose, workers=1)
    rows = {row.id: row for row in read_rows(tmp_path / "out" / LEDGER)}
    data, records = (
        (folder / "records.jsonl").read_bytes(),
        [name for name in rows if name.startswith("records.jsonl:")],
    )
    assert len(records) == 4
    for name in records:
        line = data[rows[name].offset :].partition(b"\n")[0]
        assert hashlib.blake2b(json.loads(line)["text"].encode(), digest_size=16).hexdigest() == rows[name].hash
    assert rows["0.txt"].offset == 0 and rows["picture.png"].offset == -1
