"""Any source becomes a prepared folder: files are worked on side by side, then put together; finished work is kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bimo import files
from bimo.config import differences, to_mapping
from bimo.errors import BimoError, ConfigError, DataError
from bimo.text import store
from bimo.text.decode import check_encoding
from bimo.text.document import Skipped
from bimo.text.listing import File
from bimo.text.prepare.assemble import decide, mixture, write_ledger
from bimo.text.prepare.ledger import EXAMPLES, LEDGER, READ
from bimo.text.prepare.part import Facts, Task, grouped, identity
from bimo.text.prepare.parts import Parts
from bimo.text.prepare.recipe import Recipe, announcements, fingerprint, fitted, references
from bimo.text.prepare.shards import write_shards
from bimo.text.prepare.workers import Worker, local
from bimo.text.readers.columns import parse_template
from bimo.text.slices import sliced
from bimo.text.source import Source, not_read, open_source
from bimo.text.split import check_shares

LOCK = ".lock"
SPLIT_LOST = "Text that was split when it was prepared is put together again; only --split-by holds some of it out."
TASK_BYTES = 16_000_000  # of a large text; of a small one, each process has TASKS_A_WORKER, so that all end together
TASKS_A_WORKER = 16
SLICE_BYTES = 1_000_000  # always the same, so that slices of an earlier call are those of this one; the least of a task


@dataclass
class Done:
    """How far the work has come.

    Attributes:
        bytes: of the files that are finished, of ``total``.
        documents: that were in them, of which the steps kept ``kept``.
    """

    total: int
    bytes: int = 0
    documents: int = 0
    kept: int = 0

    def add(self, facts: Facts) -> None:
        """Count a finished part."""
        self.bytes += facts.bytes_in
        self.documents += facts.documents
        self.kept += facts.kept


def prepare(
    source: Source,
    out: Path,
    recipe: Recipe | None = None,
    *,
    workers: int | None = None,
    run: Worker | None = None,
    watch: Callable[[Done], None] = lambda done: None,
    tell: Callable[[str], None] = lambda said: None,
) -> dict[str, Any]:
    """Clean the documents of ``source`` and write them to the folder ``out``, with a ledger.

    An interrupted call is taken up by the next one, and files that were added are all that is read again; both end in
    the same bytes as one call.

    Args:
        workers: processes; as many as there are cores by default.
        run: does tasks in another way: yields the parts, in any order.
        watch: called whenever a part is finished.
        tell: called before the work begins with what the user should know of it.

    Returns:
        The manifest, and ``unchanged``: True when ``out`` holds this already and nothing was done.

    Raises:
        DataError: ``out`` holds something else, is in use, cannot be written, nothing was kept, or the source is
            strict and a file of it cannot be read.
        ConfigError: encoding, template, mixture or split make no sense.
    """
    recipe = recipe or Recipe()
    check_encoding(recipe.reading.encoding)
    parse_template(recipe.reading.template)
    mixture(recipe.arrangement, list(dict.fromkeys(_labels(source.files))))
    if recipe.arrangement.split_by != "none":
        check_shares(recipe.arrangement.validation, recipe.arrangement.test)
    learned_from = [identity(file) for name in references(recipe.clean) for file in open_source(name).files]
    listed = [identity(file) for file in source.files], [str(one) for one in source.not_listed], learned_from
    inputs = fingerprint([recipe.work(), to_mapping(recipe), listed])
    try:
        before = _take(out, recipe)
        if before.get("inputs_sha256") == inputs and not (source.strict and before["skipped"]):
            return {**before, "unchanged": True}
        with _locked(out):
            ready, work = fitted(recipe, out.absolute())  # for workers in another folder
            for said in announcements(ready.clean) + ([SPLIT_LOST] if any(file.side for file in source.files) else []):
                tell(said)
            pieces = list(sliced(source.files, ready.reading.encoding, min(SLICE_BYTES, TASK_BYTES)))
            processes = workers or os.cpu_count() or 1
            made = _work(pieces, source.strict, ready, work, out / store.PARTS, run or local(workers), processes, watch)
            whole = Parts(list(made), pieces)
            return {**_assemble(source, whole, recipe, out, inputs), "unchanged": False}
    except OSError as cause:
        fix = "Free some space or choose another place; what is finished is kept."
        raise DataError(f"{out} cannot be written.", got=str(cause), fix=fix) from None


def _take(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Make sure that ``out`` is ours to write to; returns its manifest, where there is one.

    Raises:
        DataError: it holds something else, or text that was prepared in another way.
    """
    wanted = json.loads(json.dumps(to_mapping(recipe)))
    try:
        old = files.read_json(out / store.RECIPE)
    except BimoError:
        old = {}
    ours = old.keys() >= {"reading", "clean"}  # somebody else's file may have this name
    if not ours:
        store.refuse_unless_new(out)
    if not ours or not store.is_prepared(out):
        out.mkdir(parents=True, exist_ok=True)
        files.write_json(out / store.RECIPE, wanted)
        return {}
    if changed := list(differences(old, wanted)):
        got = "; ".join(changed[:3])
        fix = "Delete it, or choose another --out."
        raise DataError(f"{out} was prepared in another way.", expected="the same settings", got=got, fix=fix)
    return store.read_manifest(out)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other calls away from a folder, until this one ends or is killed."""
    import fcntl

    with (out / LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "Wait until it ends, or choose another --out."
            raise DataError(f"{out} is being written by another call.", fix=fix) from None
        except OSError:  # a file system without locks
            pass
        yield


def _work(
    pieces: Sequence[File],
    strict: bool,
    recipe: Recipe,
    work: str,
    folder: Path,
    run: Worker,
    workers: int,
    watch: Callable[[Done], None],
) -> Iterator[Path]:
    """The parts of all files: those that are finished, then those that are made now."""
    folder.mkdir(exist_ok=True)
    wanted = set(map(identity, pieces))
    known: set[tuple[Any, ...]] = set()
    done = Done(sum(file.size for file in pieces))
    for part in sorted(folder.iterdir()):
        try:
            facts = Facts() if part.name.startswith(".") else Facts.read(part)
        except DataError:
            facts = Facts()  # left behind by a process that was killed, as what is hidden
        names = {name for name, *_ in facts.files}
        if facts.work == work and names <= wanted and not names & known:
            known |= names
            _check(facts, strict)
            done.add(facts)
            yield part
        else:
            shutil.rmtree(part, ignore_errors=True)
    watch(done)
    left = [file for file in pieces if identity(file) not in known]
    each = max(sum(file.size for file in left) // (TASKS_A_WORKER * workers), SLICE_BYTES)
    for part in run([Task(group, recipe, work, str(folder)) for group in grouped(left, min(each, TASK_BYTES))]):
        facts = Facts.read(part)
        _check(facts, strict)
        done.add(facts)
        watch(done)
        yield part


def _check(facts: Facts, strict: bool) -> None:
    if strict and facts.unread:
        raise not_read([Skipped(**one) for one in facts.unread])


def _assemble(source: Source, whole: Parts, recipe: Recipe, out: Path, inputs: str) -> dict[str, Any]:
    if not whole.count:
        raise nothing_kept(source, whole)
    with _work_folder(out) as folder:
        decided = decide(whole, recipe, _labels([stretch.file for stretch in whole.stretches]), folder)
        if not len(decided.order):
            fix = "Give larger weights, or a larger arrangement.target_bytes."
            raise ConfigError("The mixture leaves no text.", fix=fix)
        new = folder / "new"
        new.mkdir()
        with ThreadPoolExecutor(1) as beside:
            ledger = beside.submit(write_ledger, whole, decided, source.not_listed, new / LEDGER)
            manifest = write_shards(whole, decided, new)
            manifest["funnel"], skipped = ledger.result()
        files.write_json(new / EXAMPLES, whole.examples())
        manifest |= {
            "source": source.name,
            "licence": source.licence,
            "inputs_sha256": inputs,
            "skipped": [asdict(one) for one in skipped],
            "crowds": [str(crowd) for crowd in decided.duplicates.crowds],
        }
        (out / store.MANIFEST).unlink(missing_ok=True)  # from here until the new one the folder is unfinished
        for old in out.glob("documents-*.jsonl.zst"):
            old.unlink()
        for path in sorted(new.iterdir()):
            os.replace(path, out / path.name)
        files.write_json(out / store.MANIFEST, manifest)
    return manifest


def _labels(listed: Sequence[File]) -> list[str]:
    """The name of each file's input, as ``--mix`` knows it: without folder and suffix, where that is clear."""
    inputs = dict.fromkeys(file.input for file in listed)
    names = {name: Path(name).name.partition(".")[0] or name for name in inputs}
    clear = {name: label for name, label in names.items() if list(names.values()).count(label) == 1}
    return [clear.get(file.input, file.input) for file in listed]


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    for left in out.glob(".assembling-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".assembling-", dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def nothing_kept(source: Source, parts: Parts) -> DataError:
    """The error for a source of which no document is left, with the reasons."""
    rows = itertools.chain.from_iterable(table.to_pylist() for table in parts.tables(("step", "reason")))
    reasons = Counter(f"{row['step']}: {row['reason']}" for row in rows)
    if not reasons:
        return source.nothing_readable()
    shown = "; ".join(f"{count} x {reason.rstrip('.')}" for reason, count in reasons.most_common(3))
    fix = "Switch a step off, for example --set clean.quality.on=false, or see `bimo prepare --help`."
    if all(reason.startswith(f"{READ}: ") for reason in reasons):
        fix = "Nothing in it could be read; if its text is in a column, name it with --text-column."
    return DataError(f"Nothing of {source.name} was kept.", expected="text worth learning from", got=shown, fix=fix)
