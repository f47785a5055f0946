"""``bimo corpora``: real texts by name."""

from __future__ import annotations

from cyclopts import App

from bimo.commands.results import print_table

app = App(name="corpora", help="List real corpora, and fetch them by name.")


@app.command(name="list")
def list_() -> None:
    """List the corpora, with language, size and licence."""
    from bimo.text.corpora import CORPORA

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


@app.command
def get(name: str, /) -> None:
    """Fetch a corpus into the cache and print the folder it lies in.

    Commands that read text fetch what they need by themselves; this is for
    getting ready to work without a network.

        bimo corpora get sanguo

    Args:
        name: one of those that `bimo corpora list` shows
    """
    from bimo.text.corpora import fetch
    from bimo.train.display import Display

    with Display().bar(f"fetching {name}") as advance:
        folder = fetch(name, advance)
    print(folder)
