"""``bimo prepare``: text files to one checked, compressed folder that every other command reads."""

from __future__ import annotations

from pathlib import Path

from bimo.commands.results import print_table
from bimo.errors import UsageError

MOST_SKIPPED = 20


def prepare(
    *what: str,
    out: Path,
    text_column: str = "text",
    template: str = "",
    time_column: str = "",
    encoding: str = "auto",
    strict: bool = False,
) -> None:
    r"""Read text files into one checked, compressed folder.

    Reads txt, md, source code, jsonl, json, csv, tsv, parquet, arrow and folders
    of Hugging Face datasets, each also as gz, zst, bz2 or xz and inside zip and
    tar archives; whole folders; and - for standard input. Skipped files are
    listed with the reason.

        bimo prepare books/ --out data/books
        bimo prepare a.csv b.jsonl.gz --text-column review --out data/reviews
        bimo prepare news.parquet --template "{title}\n\n{body}" --out data/news
        zcat mail.jsonl.gz | bimo prepare - --out data/mail
        bimo train --data data/books --budget 10m --out runs/books

    Args:
        what: files, folders, names of corpora, or - for standard input
        out: the folder to write, which must not exist yet
        text_column: the column or key that holds the text in jsonl, json, csv, tsv, parquet and arrow
        template: makes the text from several columns, such as "{title}\n\n{body}"
        time_column: the column or key that says when a record was written
        encoding: of files that do not say their own, such as gb18030; auto finds it out for each
        strict: stop at a file that no reader takes or that cannot be read
    """
    if not what:
        expected = "files, folders or names of corpora"
        raise UsageError("There is nothing to prepare.", expected=expected, fix=f"bimo prepare books/ --out {out}")
    from bimo.text.prepare.prepare import prepare as write
    from bimo.text.source import open_source
    from bimo.train.display import Display

    display = Display()
    source = open_source(*what, strict=strict)
    with display.bar("preparing") as advance:
        manifest = write(source, out, watch=lambda done: advance(done.bytes, done.total))
    if manifest["unchanged"]:
        display.note(f"{out} holds exactly this already; nothing was done.")
    skipped = manifest["skipped"]
    rows = [
        ("folder", str(out)),
        ("documents", f"{manifest['documents']:,}"),
        ("text", f"{manifest['bytes']:,} bytes"),
        ("licence", manifest["licence"] or "not known"),
        ("hash", manifest["data_hash"]),
        ("skipped", f"{sum(one.get('count', 1) for one in skipped):,}"),
        *(("", f"{one['file']}: {one['reason']}") for one in skipped[:MOST_SKIPPED]),
    ]
    if len(skipped) > MOST_SKIPPED:
        rows.append(("", f"and more, all in {out / 'manifest.json'}"))
    print_table(("", ""), rows)
