"""``bimo prepare``: any folder to clean documents in one checked, compressed folder, with an account of each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bimo.commands.results import print_table
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.text.prepare.prepare import Done

MOST_REASONS = 20


def prepare(
    *what: str,
    out: Path,
    config: Path | None = None,
    set: tuple[str, ...] = (),
    raw: bool = False,
    text_column: str | None = None,
    template: str | None = None,
    time_column: str | None = None,
    encoding: str | None = None,
    strict: bool = False,
    languages: tuple[str, ...] = (),
    pii: Literal["redact", "drop", "keep"] | None = None,
    against: tuple[str, ...] = (),
    mix: tuple[str, ...] = (),
    most_epochs: tuple[str, ...] = (),
    shuffle: bool = False,
    split_by: Literal["none", "document", "source", "file", "time"] | None = None,
    seed: int | None = None,
    workers: int | None = None,
    on: Literal["here", "ray"] = "here",
) -> None:
    r"""Turn any folder into clean documents, with an account of every one.

    Reads text, source code, html, pdf, docx, pptx, xlsx, epub, csv, tsv, json,
    jsonl, parquet, arrow, ipynb, mbox, eml and WARC, each also compressed and
    inside zip and tar archives; whole folders, Hugging Face datasets, and - for
    standard input. What is cleaned, and where the rules come from: docs/text.md.

    A second call takes up what an interrupted one has left, and reads only files
    that are new. `bimo ledger` tells what became of each document.

        bimo prepare books/ --out data/books
        bimo prepare a.csv b.jsonl.gz --text-column review --out data/reviews
        bimo prepare news.parquet --template "{title}\n\n{body}" --out data/news
        bimo prepare wiki.jsonl forum/ --mix wiki=2,forum=1 --out data/mix
        bimo prepare crawl/ --languages zh --set clean.quality.profile=web --out data/zh
        zcat mail.jsonl.gz | bimo prepare - --out data/mail
        bimo train --data data/books --budget 10m --out runs/books

    Args:
        what: files, folders, names of corpora, or - for standard input
        out: the folder to write
        config: a YAML file with any of the settings of docs/configuration.md
        set: one setting, such as clean.quality.min_words=20 (repeatable)
        raw: read and write, and clean nothing
        text_column: the column or key that holds the text in tables and records
        template: makes the text from several columns, such as "{title}\n\n{body}"
        time_column: the column or key that says when a record was written
        encoding: of files that do not say their own, such as gb18030; auto finds it out for each
        strict: stop at a file that no reader takes or that cannot be read
        languages: keep only documents in these, such as zh (repeatable)
        pii: personal data and secrets: redact them, drop documents with many, or keep them
        against: an evaluation set, whose text is left out (repeatable)
        mix: how often inputs are read, such as wiki=2,forum=1
        most_epochs: the most times that inputs are read, such as wiki=3
        shuffle: write the documents in a seeded random order
        split_by: hold documents out for validation and test already now
        seed: of the order and the split
        workers: processes; as many as there are cores by default
        on: this machine, or a Ray cluster that shares the folder
    """
    if not what:
        expected = "files, folders or names of corpora"
        raise UsageError("There is nothing to prepare.", expected=expected, fix=f"bimo prepare books/ --out {out}")
    from bimo.config import from_mapping, merged, read_yaml, with_overrides
    from bimo.text.prepare.prepare import prepare as write
    from bimo.text.prepare.recipe import CLEAN_NOTHING, Recipe
    from bimo.text.source import open_source
    from bimo.train.display import Display

    reading = {"text_column": text_column, "template": template, "time_column": time_column, "encoding": encoding}
    clean = {
        "language": {"keep": list(languages)} if languages else {},
        "pii": {"action": pii} if pii else {},
        "decontaminate": {"on": True, "against": list(against)} if against else {},
    }
    arrangement = {
        "mix": list(mix),
        "most_epochs": list(most_epochs),
        "shuffle": shuffle or None,
        "split_by": split_by,
        "seed": seed,
    }
    values: dict[str, Any] = read_yaml(config) if config else {}
    for given in (CLEAN_NOTHING if raw else {}, {"reading": reading, "clean": clean, "arrangement": arrangement}):
        values = merged(values, _said(given))
    recipe = from_mapping(Recipe, with_overrides(values, set), where=str(config or "settings"))
    run = None
    if on == "ray":
        from bimo.scale.prepare import on_ray

        run = on_ray
    display = Display()
    source = open_source(*what, strict=strict)
    with display.bar("preparing") as advance:
        pace = Pace()
        manifest = write(
            source,
            out,
            recipe,
            workers=workers,
            run=run,
            watch=lambda done: advance(done.bytes, done.total, pace.of(done)),
        )
    if manifest["unchanged"]:
        display.note(f"{out} holds exactly this already; nothing was done.")
    print_table(("", ""), _summary(out, manifest))


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """Without what the user did not say."""
    inner = {key: _said(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in inner.items() if value not in (None, {}, [])}


class Pace:
    """What the bar says besides: documents and megabytes a second, and the share that is kept."""

    def __init__(self) -> None:
        self._began, self._first = time.monotonic(), (0, 0)
        self._told = False

    def of(self, done: Done) -> str:
        """The facts now; what an earlier call had done is not counted as fast."""
        if not self._told:
            self._told, self._first = True, (done.bytes, done.documents)
        seconds = max(time.monotonic() - self._began, 1e-3)
        documents, size = done.documents - self._first[1], done.bytes - self._first[0]
        kept = done.kept / max(1, done.documents)
        return f"{documents / seconds:,.0f} documents/s  {size / seconds / 1e6:.1f} MB/s  {kept:.0%} kept"


def _summary(out: Path, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    from bimo.text.document import Skipped
    from bimo.text.listing import summary

    funnel, skipped = manifest["funnel"], [Skipped(**one) for one in manifest["skipped"]]
    reasons = summary(skipped)
    rows = [
        ("folder", str(out)),
        ("read", f"{funnel['documents_in']:,} documents, {funnel['bytes_in']:,} bytes"),
        ("kept", f"{manifest['documents']:,} documents, {manifest['bytes']:,} bytes"),
        *(("dropped", f"{count:,} {reason}") for reason, count in funnel["reasons"].items()),
        ("licence", manifest["licence"] or "not known"),
        ("hash", manifest["data_hash"]),
        ("skipped", f"{sum(one.count for one in skipped):,}"),
        *(("", reason) for reason in reasons[:MOST_REASONS]),
    ]
    if len(reasons) > MOST_REASONS:
        rows.append(("", f"and more, all in {out / 'manifest.json'}"))
    rows.append(("ask", f"bimo ledger {out}"))
    return rows
