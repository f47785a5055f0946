"""``bimo corpora``: real texts by name."""

from __future__ import annotations

from cyclopts import App

from bimo.commands.results import print_table

app = App(name="corpora", help="List real corpora and labelled sets; fetch them by name.")


@app.command(name="list")
def list_() -> None:
    """List the corpora and the labelled sets, with language, size and licence."""
    from bimo.text.corpora import CORPORA
    from bimo.text.labelled import SETS

    columns = ("name", "language", "text", "download", "licence", "what it is")
    rows = (
        (
            corpus.name,
            corpus.language,
            f"{corpus.text_bytes / 1e6:.1f} MB",
            f"{corpus.size / 1e6:.1f} MB" if corpus.size else "none",
            corpus.licence,
            corpus.description,
        )
        for corpus in CORPORA.values()
    )
    print_table(columns, rows, right=("text", "download"))
    print("\nlabelled sets, for `bimo tune --data NAME`, and most for `bimo eval RUN --task NAME`")
    sets = (
        (
            one.name,
            one.language,
            f"{sum(archive.size for archive in one.archives) / 1e6:.1f} MB",
            "measure" if one.test_only else "learn, measure",
            one.licence,
            one.description,
        )
        for one in SETS.values()
    )
    print_table(("name", "language", "download", "to", "licence", "what it is"), sets, right=("download",))


@app.command
def get(name: str, /) -> None:
    """Fetch a corpus or labelled set into the cache and print its folder.

    Commands that read text fetch what they need by themselves; this is for
    getting ready to work without a network.

        bimo corpora get sanguo

    Args:
        name: one of those that `bimo corpora list` shows
    """
    from bimo.text import corpora, labelled
    from bimo.train.display import Display

    with Display().bar(f"fetching {name}") as advance:
        folder = labelled.fetch(name, advance) if name in labelled.SETS else corpora.fetch(name, advance)
    print(folder)
