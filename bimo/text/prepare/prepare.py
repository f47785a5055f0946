"""Any source becomes a prepared folder: files are worked on side by side, then put together; finished work is kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bimo import files
from bimo.config import differences, to_mapping
from bimo.errors import DataError
from bimo.text import store
from bimo.text.listing import File
from bimo.text.prepare.assemble import Parts, decide, write_ledger, write_shards
from bimo.text.prepare.ledger import LEDGER
from bimo.text.prepare.part import FACTS, Facts, Task, grouped, identity, make_broken_part, make_part
from bimo.text.prepare.recipe import Recipe, fingerprint, fitted
from bimo.text.source import Source

PARTS, RECIPE, EXAMPLES = "parts", "recipe.json", "examples.json"
TASK_BYTES = 16_000_000
ALONE_BYTES = 4_000_000  # less is done by this process: others would take longer to start
DIED = "the process that read it died"

Worker = Callable[[Sequence[Task]], Iterator[Path]]


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
) -> dict[str, Any]:
    """Clean the documents of ``source`` and write them to the folder ``out``, with a ledger.

    An interrupted call is taken up by the next one, and files that were added are all that is read again; both end in
    the same bytes as one call.

    Args:
        workers: processes; as many as there are cores by default.
        run: does tasks in another way: yields the parts, in any order.
        watch: called whenever a part is finished.

    Returns:
        The manifest, and ``unchanged``: True when ``out`` holds this already and nothing was done.

    Raises:
        DataError: ``out`` holds something else, cannot be written, or nothing was kept.
        ConfigError: mixture or split make no sense.
    """
    recipe = recipe or Recipe()
    inputs = fingerprint([recipe.work(), to_mapping(recipe), [identity(file) for file in source.files]])
    before = _take(out, recipe)
    if before.get("inputs_sha256") == inputs:
        return {**before, "unchanged": True}
    try:
        ready, work = fitted(recipe, out)
        parts = list(_work(source.files, ready, work, out / PARTS, run or _runner(workers), watch))
        return {**_assemble(source, parts, recipe, out, inputs), "unchanged": False}
    except OSError as cause:
        fix = "Free some space or choose another place; what is finished is kept."
        raise DataError(f"{out} cannot be written.", got=str(cause), fix=fix) from None


def _take(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Make sure that ``out`` is ours to write to; returns its manifest, where there is one.

    Raises:
        DataError: it holds something else, or text that was prepared in another way.
    """
    wanted = json.loads(json.dumps(to_mapping(recipe)))
    ours = (out / RECIPE).is_file()
    if not ours:
        store.refuse_unless_new(out)
    if not ours or not store.is_prepared(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
            files.write_json(out / RECIPE, wanted)
        except OSError as cause:
            raise DataError(f"{out} cannot be written.", got=str(cause), fix="Choose another place for it.") from None
        return {}
    old = files.read_json(out / RECIPE, error=DataError, expected="the recipe of prepared text")
    if changed := list(differences(old, wanted)):
        got = "; ".join(changed[:3])
        fix = "Delete it, or choose another --out."
        raise DataError(f"{out} was prepared in another way.", expected="the same settings", got=got, fix=fix)
    return store.read_manifest(out)


def _work(
    listed: Sequence[File], recipe: Recipe, work: str, folder: Path, run: Worker, watch: Callable[[Done], None]
) -> Iterator[Path]:
    """The parts of all files: those that are finished, then those that are made now."""
    folder.mkdir(exist_ok=True)
    wanted = {str(identity(file)) for file in listed}
    known: set[str] = set()
    done = Done(sum(file.size for file in listed))
    for part in sorted(folder.iterdir()):
        if not (part / FACTS).is_file():
            shutil.rmtree(part, ignore_errors=True)  # left behind by a process that was killed
            continue
        facts = Facts.read(part)
        names = {str(name) for name, _, _ in facts.files}
        if names <= wanted and not names & known and facts.work == work:
            known |= names
            done.add(facts)
            yield part
        else:
            shutil.rmtree(part)
    watch(done)
    left = [file for file in listed if str(identity(file)) not in known]
    for part in run([Task(group, recipe, work, str(folder)) for group in grouped(left, TASK_BYTES)]):
        done.add(Facts.read(part))
        watch(done)
        yield part


def _runner(workers: int | None) -> Worker:
    def run(tasks: Sequence[Task]) -> Iterator[Path]:
        count = min(workers or os.cpu_count() or 1, len(tasks))
        if count < 2 or sum(task.size for task in tasks) < ALONE_BYTES:
            yield from map(make_part, tasks)
        else:
            yield from _side_by_side(tasks, count)

    return run


def _side_by_side(tasks: Sequence[Task], workers: int) -> Iterator[Path]:
    """Do tasks in processes; where one dies, its files are tried again one by one, and the deadly one is left out."""
    waiting, finished = iter(tasks), set()
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            running: dict[Future[Path], Task] = {}
            try:
                while True:
                    for task in itertools.islice(waiting, workers + 1 - len(running)):
                        running[pool.submit(make_part, task)] = task
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        part = future.result()
                        finished.add(running.pop(future).name)
                        yield part
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        pass
    for task in tasks:
        if task.name not in finished:
            yield from _one_by_one(task)


def _one_by_one(task: Task) -> Iterator[Path]:
    for file in task.files:
        single = Task((file,), task.recipe, task.work, task.folder)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                part = pool.submit(make_part, single).result()
        except BrokenProcessPool:
            part = make_broken_part(single, DIED)
        yield part


def _assemble(source: Source, parts: Iterable[Path], recipe: Recipe, out: Path, inputs: str) -> dict[str, Any]:
    whole = Parts(list(parts), source.files)
    with _work_folder(out) as folder:
        decided = decide(whole, recipe, _labels(source.files), folder)
        skipped = [asdict(one) for one in source.not_listed]
        skipped += itertools.chain.from_iterable(facts.skipped for facts in whole.facts)
        if not len(decided.order):
            raise nothing_kept(source, whole, skipped)
        new = folder / "new"
        new.mkdir()
        manifest = write_shards(whole, decided, new)
        manifest["funnel"] = write_ledger(whole, decided, source.not_listed, new / LEDGER)
        files.write_json(new / EXAMPLES, whole.examples())
        manifest |= {
            "source": source.name,
            "licence": source.licence,
            "inputs_sha256": inputs,
            "skipped": skipped,
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
    names = {file.input: Path(file.input).name.partition(".")[0] or file.input for file in listed}
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


def nothing_kept(source: Source, parts: Parts, skipped: Sequence[dict[str, Any]]) -> DataError:
    """The error for a source of which no document is left, with the reasons."""
    reasons: dict[str, int] = {}
    for row in parts.rows(("kept", "step", "reason")):
        if not row.kept:
            reasons[f"{row.step}: {row.reason}"] = reasons.get(f"{row.step}: {row.reason}", 0) + 1
    if not reasons:
        return source.nothing_readable()
    shown = "; ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items(), key=lambda one: -one[1])[:3])
    fix = "Switch a step off, for example --set clean.quality.on=false, or see `bimo prepare --help`."
    return DataError(f"Nothing of {source.name} was kept.", expected="text worth learning from", got=shown, fix=fix)
