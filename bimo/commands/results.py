"""Results on standard output: tables that fit a terminal and survive a pipe, numbers with their intervals, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.evaluate.intervals import Measured

UNLIMITED = 10_000  # columns where there is no terminal: nothing is cut or wrapped


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print rows under ``columns``; those named in ``right`` are aligned to the right. Empty names: no header."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(columns), header_style="bold")
    for column in columns:
        number = column in right
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNLIMITED)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def print_json(values: Any) -> None:
    """Print plain values as JSON, for other programs."""
    print(json.dumps(values, indent=2, ensure_ascii=False))


def with_interval(measured: Measured, digits: int = 3) -> str:
    """A number and its 95% interval: ``2.134 (95%: 2.101 to 2.170)``."""
    value = f"{measured.value:,.{digits}f}"
    if measured.low is None or measured.high is None:
        return value
    return f"{value} (95%: {measured.low:,.{digits}f} to {measured.high:,.{digits}f})"


def counted(number: int, what: str) -> str:
    """``1 document``, ``2,000 documents``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def visible(text: str) -> str:
    """``text`` on one line, with line ends and control characters written out."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def tell(text: str) -> None:
    """A note beside the result, on standard error."""
    print(f"! {text}", file=sys.stderr)


def text_argument(text: str) -> str:
    """A text as given on the command line; ``-`` stands for standard input.

    Raises:
        UsageError: it is not UTF-8.
    """
    if text != "-":
        return checked(text)
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as cause:
        raise UsageError("Standard input is not readable.", expected="UTF-8 text", got=str(cause)) from None


def checked(text: str) -> str:
    """``text``, if it is one: bytes that are not UTF-8 arrive from a shell as lone surrogates.

    Raises:
        UsageError: it is not.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise UsageError("The text is not readable.", expected="UTF-8", got=str(cause)) from None
    return text
