"""The sums of a ledger, against rows added up by hand, and what contradicts itself."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bimo.errors import DataError
from bimo.text import store
from bimo.text.prepare import funnel
from bimo.text.prepare.funnel import Account, account, count, open_ledger, order_of, stages
from bimo.text.prepare.ledger import LEDGER, READ, LedgerReader, LedgerWriter, Row, read_rows, rows_at, table_of

ORDER = ("normalise", "quality", "pii")


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row as the pipeline writes them: changed by some steps, then perhaps left out by one of them or a later one."""
    number = draw(st.integers(0, 10**6))
    row = Row(f"a.jsonl:{number}", draw(st.sampled_from(["a.jsonl", "b.txt"])), number)
    row.kind, row.language = draw(st.sampled_from(["prose", "code"])), draw(st.sampled_from(["", "en", "zh"]))
    row.bytes_in = size = draw(st.integers(0, 1 << 40))
    end = draw(st.sampled_from([READ, *ORDER, "duplicates", "mix", "kept"]))
    for step in ORDER:
        if end == READ:
            break
        if step != end and draw(st.booleans()):
            taken = draw(st.integers(-100, size))
            row.changes.append((step, taken))
            size -= taken
        if step == end:
            break
    if end == "kept":
        row.kept, row.bytes_out, row.copies = True, size, draw(st.integers(1, 3))
        row.split = draw(st.sampled_from(["train", "test"]))
    else:
        row.bytes_dropped = size
        row.drop(end, draw(st.sampled_from(["too short", "太短", "it's <b>"])), "as measured")
    if end in ("duplicates", "kept"):
        row.cluster = draw(st.integers(-1, 5))
    return row


def written(folder: Path, some: list[Row]) -> Path:
    ledger = LedgerWriter(folder / LEDGER)
    for row in some:
        ledger.add(row)
    ledger.close()
    return folder


@given(st.lists(rows(), max_size=40), st.integers(1, 9))
@example([], 1)
def test_the_funnel_adds_up_to_the_byte(some: list[Row], at_once: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(funnel, "ROWS", at_once)
        totals = count(written(Path(name), some))
    kept = [row for row in some if row.kept]
    assert totals.balanced and totals.documents == len(some) and totals.kept == len(kept)
    assert totals.bytes_in == sum(row.bytes_in for row in some)
    assert totals.bytes_out == sum(row.bytes_out for row in kept)
    assert totals.written == sum(row.copies for row in kept)
    assert totals.bytes_written == sum(row.copies * row.bytes_out for row in kept)
    assert {key: documents for key, (documents, _) in totals.by_reason.items()} == Counter(
        (row.step, row.reason) for row in some if not row.kept
    )
    found = stages(totals, ORDER)
    assert [stage.name for stage in found][:6] == ["found", READ, *ORDER, "duplicates"]
    assert (found[-1].documents, found[-1].bytes) == (len(kept), totals.bytes_out)
    for before, after in itertools.pairwise(found):
        here = [row for row in some if row.step == after.name]
        taken = [size for row in some for step, size in row.changes if step == after.name]
        assert (after.dropped, after.bytes_dropped) == (len(here), sum(row.bytes_dropped for row in here))
        assert (after.changed, after.bytes_changed) == (len(taken), sum(taken))
        assert before.documents == after.documents + after.dropped
        assert before.bytes == after.bytes + after.bytes_dropped + after.bytes_changed
    read = [row for row in some if row.step != READ]
    assert {key: group.bytes_in for key, group in totals.languages.items()} == sums(read, "language", "bytes_in")
    assert {key: group.bytes for key, group in totals.kinds.items()} == sums(read, "kind", "bytes_out")
    assert {key: side.bytes for key, side in totals.sides.items()} == sums(kept, "split", "bytes_out")
    assert totals.lengths[0].tolist() == lengths([row.bytes_in for row in read])
    assert totals.lengths[1].tolist() == lengths([row.bytes_out for row in kept if row.bytes_out])
    assert totals.clusters[0].sum() == sum(row.cluster >= 0 for row in some)
    assert totals.files == sum(a.file != b.file for a, b in itertools.pairwise(some)) + bool(some)


def sums(some: list[Row], key: str, value: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in some:
        found[getattr(row, key)] += getattr(row, value)
    return dict(found)


def lengths(sizes: list[int]) -> list[int]:
    return [sum(size.bit_length() == place for size in sizes) for place in range(funnel.BINS)]


@given(st.lists(rows(), min_size=1, max_size=9), st.data())
def test_one_byte_too_many_is_found(some: list[Row], data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, len(some) - 1))
    name = data.draw(st.sampled_from(["bytes_in", "bytes_out", "bytes_dropped"]))
    setattr(some[wrong], name, getattr(some[wrong], name) + 1)
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), some)
        with pytest.raises(DataError, match=rf"row {wrong} \({some[wrong].id}\)"):
            count(Path(folder))


def test_a_kept_document_has_no_dropped_bytes(tmp_path: Path) -> None:
    row = Row("a", "a", 0, bytes_in=5, bytes_out=3, bytes_dropped=2, kept=True, copies=1)
    with pytest.raises(DataError, match=r"row 0 \(a\)"):
        count(written(tmp_path, [row]))


@given(st.lists(rows(), max_size=30), st.data())
def test_rows_are_found_by_their_numbers(some: list[Row], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(some) - 1), unique=True) if some else st.just([]))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bimo.text.prepare.ledger.ROWS_AT_ONCE", 4)
        path = written(Path(folder), some) / LEDGER
        everything = list(read_rows(path))
        assert rows_at(path, wanted) == [everything[number] for number in sorted(wanted)]
        assert [row.changes for row in everything] == [row.changes for row in some]


@given(st.lists(rows(), max_size=30), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30), st.integers(0, 30))
def test_rows_are_written_in_equal_groups_however_they_come(
    some: list[Row], cuts: list[int], first: int, count: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bimo.text.prepare.ledger.ROWS_AT_ONCE", 4)
        one_by_one = (written(Path(folder), some) / LEDGER).read_bytes()
        ledger = LedgerWriter(Path(folder) / "other")
        for number, (begin, end) in enumerate(
            itertools.pairwise([0, *sorted(cut for cut in cuts if cut < len(some)), len(some)])
        ):
            if number % 2:
                ledger.extend(table_of(some[begin:end]))
            for row in some[begin:end] if not number % 2 else ():
                ledger.add(row)
        ledger.close()
        assert (Path(folder) / "other").read_bytes() == one_by_one
        with LedgerReader(Path(folder) / LEDGER, ["id"]) as reader:
            assert reader.count == len(some)
            ids = [id for table in reader.tables(first, count) for id in table["id"].to_pylist()]
        assert ids == [row.id for row in some[first : first + count]]


@pytest.fixture(scope="module")
def found(prepared_dirt: Path) -> Account:
    return account(prepared_dirt)


def test_the_dirt_is_accounted_for(found: Account) -> None:
    reasons = {(one.step, one.reason): one for one in found.reasons}
    assert reasons["quality", "too few words"].documents >= 2
    assert reasons["read", "binary file"].bytes == 256 * 20
    assert reasons["duplicates", "exact duplicate"].documents == 1
    assert reasons["duplicates", "near duplicate"].documents == 2
    assert found.stages[-1].name == "duplicates" and found.stages[-1].documents == found.manifest["documents"]
    assert found.stages[-1].bytes == found.manifest["bytes"] == found.totals.bytes_out
    assert found.totals.files == 6
    for one in found.reasons:
        assert 1 <= len(one.examples) <= min(3, one.documents) and all(example["id"] for example in one.examples)
    assert "before" in reasons["quality", "too few words"].examples[0]
    assert {"normalise", "pii"} <= set(found.changes)


def test_clusters_name_the_copy_that_was_kept(found: Account) -> None:
    assert found.clustered == (2, 5, 2)
    largest, other = found.clusters
    assert (largest.documents, largest.kept, other.documents) == (3, 1, 2)
    kept, *copies = largest.members
    assert kept.kept and {member.id for member in (kept, *copies)} == {f"many.jsonl:{n}" for n in (3, 13, 14)}
    assert all(not copy.kept and kept.id in copy.evidence for copy in copies)


def test_the_order_is_the_recipes(prepared_dirt: Path, tmp_path: Path) -> None:
    recipe = json.loads((prepared_dirt / "recipe.json").read_text(encoding="utf-8"))
    names = [name for name, config in recipe["clean"].items() if config["on"]]
    assert order_of(prepared_dirt) == names
    recipe["clean"]["quality"]["on"] = False
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    assert order_of(tmp_path) == [name for name in names if name != "quality"]


def test_a_ledger_that_contradicts_the_manifest_is_refused(prepared_dirt: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    manifest = store.read_manifest(out) | {"documents": 3}
    (out / store.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match="as in the manifest"):
        account(out)
    (out / LEDGER).write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="is damaged"):
        account(out)


def test_folders_without_a_ledger(prepared_dirt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing there"):
        open_ledger(tmp_path / "nowhere")
    with pytest.raises(DataError, match="another folder"):
        open_ledger(tmp_path)
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    (out / LEDGER).unlink()
    with pytest.raises(DataError, match="older bimo"):
        open_ledger(out)
    (out / store.MANIFEST).unlink()
    with pytest.raises(DataError, match="not finished"):
        open_ledger(out)


def test_reasons_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funnel, "MOST_REASONS", 3)
    some = [Row(f"{n}.txt", f"{n}.txt", 0) for n in range(9)]
    for number, row in enumerate(some):
        row.drop(READ, f"reason {number}", "")
    totals = count(written(tmp_path, some))
    assert len(totals.by_reason) <= 4 and sum(documents for documents, _ in totals.by_reason.values()) == 9
    assert (READ, "other reasons") in totals.by_reason
