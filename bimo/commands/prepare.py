"""``bimo prepare``: any folder to clean documents in one checked, compressed folder, with an account of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from bimo.commands.results import counted, print_table, visible
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.text.prepare.prepare import Done
    from bimo.text.prepare.recipe import Recipe
    from bimo.text.prepare.workers import Worker
    from bimo.train.display import Advance

MOST_REASONS = 20


def prepare(
    *what: str,
    out: Path,
    config: Path | None = None,
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None,
    raw: bool = False,
    text_column: str | None = None,
    template: str | None = None,
    time_column: str | None = None,
    encoding: str | None = None,
    strict: bool = False,
    languages: str | None = None,
    pii: Literal["redact", "drop", "keep"] | None = None,
    against: list[str] | None = None,
    mix: str | None = None,
    most_epochs: str | None = None,
    split_by: Literal["none", "document", "source", "file", "time"] | None = None,
    workers: int | None = None,
    on: Literal["local", "ray"] = "local",
) -> None:
    r"""Turn a folder into clean documents and a ledger.

    Reads text, code, html, pdf, docx, pptx, xlsx, odt, rtf, epub, csv, tsv, json,
    jsonl, parquet, arrow, ipynb, mbox, eml and WARC, also compressed and in zip
    and tar archives; Hugging Face datasets; and - for standard input. What is
    cleaned: docs/cleaning.md. A second call takes up what an interrupted one has
    left, and reads only files that are new.

        bimo prepare books/ --out data/books
        bimo prepare a.csv b.jsonl.gz --text-column review --out data/reviews
        bimo prepare news.parquet --template "{title}\n\n{body}" --out data/news
        bimo prepare wiki.jsonl forum/ --mix wiki=2,forum=1 --out data/mix
        bimo prepare crawl/ --languages zh,en --pii drop --out data/crawl
        zcat mail.jsonl.gz | bimo prepare - --out data/mail

    Args:
        what: files, folders, names of corpora, or - for standard input
        out: the folder to write
        config: a YAML file of settings; see docs/configuration.md
        overrides: settings as key=value, several if you like, such as clean.quality.min_words=20
        raw: clean nothing, and keep duplicates
        text_column: column or key that holds the text in tables and records; "text" if not given
        template: makes the text from several columns, such as "{title}\n\n{body}"
        time_column: column or key that says when a record was written
        encoding: of files that do not say their own, such as gb18030; found out if not given
        strict: stop at a file that no reader takes or that cannot be read
        languages: keep only documents in these, such as zh,en
        pii: redact personal data and secrets, drop documents that hold some, or keep it
        against: an evaluation set whose passages are taken out; can be given several times
        mix: how often the inputs are read, such as wiki=2,forum=1; in a shuffled order
        most_epochs: the most times that inputs are read, such as wiki=3
        split_by: hold documents out for validation and test already now, near duplicates on one side
        workers: processes; as many as there are cores if not given
        on: where to work: on this machine, or on a Ray cluster that shares the folders; needs bimo[ray]
    """
    if not what:
        raise UsageError("There is nothing to prepare.", fix=f"For example: bimo prepare books/ --out {out}")
    from bimo.text.prepare.prepare import prepare as write
    from bimo.text.source import open_source
    from bimo.train.display import Display

    options = {
        "reading.text_column": text_column,
        "reading.template": template,
        "reading.time_column": time_column,
        "reading.encoding": encoding,
        "clean.language.keep": languages and [code.strip() for code in languages.split(",")],
        "clean.pii.action": pii,
        "clean.decontaminate.against": against,
        "arrangement.mix": mix and mix.split(","),
        "arrangement.most_epochs": most_epochs and most_epochs.split(","),
        "arrangement.split_by": split_by,
    }
    recipe = _recipe(config, raw, {key: value for key, value in options.items() if value}, overrides or ())
    display, source = Display(), open_source(*what, strict=strict, out=out)
    with display.bar("preparing") as advance:
        manifest = write(source, out, recipe, workers=workers, run=_runner(on), watch=Pace(advance), tell=display.warn)
    if manifest["unchanged"]:
        display.note(f"{out} holds exactly this already; nothing was done.")
    print_table(("", ""), _summary(out, manifest))


def _recipe(config: Path | None, raw: bool, options: dict[str, Any], overrides: Iterable[str]) -> Recipe:
    """What the file says, then --raw, the options and --set, each over what is before it. Options switch steps on."""
    from bimo.config import from_mapping, merged, read_yaml, with_overrides
    from bimo.text.prepare.recipe import CLEAN_NOTHING, Recipe

    values = merged(read_yaml(config) if config else {}, CLEAN_NOTHING if raw else {})
    for key, value in options.items():
        *owners, name = key.split(".")
        inner: dict[str, Any] = {name: value} | ({"on": True} if owners[0] == "clean" else {})
        for owner in reversed(owners):
            inner = {owner: inner}
        values = merged(values, inner)
    return from_mapping(Recipe, with_overrides(values, overrides), where=str(config or "settings"))


def _runner(on: str) -> Worker | None:
    if on == "local":
        return None
    from bimo.scale.prepare import on_ray

    return on_ray()


class Pace:
    """Moves a bar, and says documents and megabytes a second and the share that is kept."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._began = advance, time.monotonic()
        self._first: tuple[int, int] | None = None  # what an earlier call had done is not counted as fast

    def __call__(self, done: Done) -> None:
        """Tell how far the work is."""
        self._first = self._first or (done.documents, done.bytes)
        seconds = max(time.monotonic() - self._began, 1e-3)
        documents, size = done.documents - self._first[0], done.bytes - self._first[1]
        kept = done.kept / max(1, done.documents)
        facts = f"{documents / seconds:,.0f} documents/s  {size / seconds / 1e6:.1f} MB/s  {kept:.0%} kept"
        self._advance(done.bytes, done.total, facts)


def _summary(out: Path, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    from bimo.text.document import Skipped
    from bimo.text.listing import summary
    from bimo.text.prepare.ledger import READ

    funnel, skipped = manifest["funnel"], [Skipped(**one) for one in manifest["skipped"]]
    dropped = [(reason, count) for reason, count in funnel["reasons"].items() if not reason.startswith(f"{READ}: ")]
    reasons = list(map(visible, summary(skipped)))
    rows = [
        ("folder", str(out)),
        ("found", f"{counted(funnel['documents_in'], 'document')}, {funnel['bytes_in']:,} bytes"),
        ("written", f"{counted(manifest['documents'], 'document')}, {manifest['bytes']:,} bytes"),
        *(("dropped", f"{count:,} {reason}") for reason, count in dropped),
        ("licence", manifest["licence"] or "not known"),
        ("hash", manifest["data_hash"]),
        ("not read", f"{sum(one.count for one in skipped):,}"),
        *(("", reason) for reason in reasons[:MOST_REASONS]),
    ]
    if len(reasons) > MOST_REASONS:
        rows.append(("", f"and more, all in {out / 'manifest.json'}"))
    rows.append(("ask", f"bimo ledger {out}"))
    return rows
