"""What the user sees while a command works: stages, the plan, the training bar; on stderr, as stdout is for results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

LOG_WIDTH = 120  # characters of a line where there is no terminal
LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class Advance(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, total: int, facts: str = "") -> None:
        """Show that ``done`` of ``total`` units are done, and what else there is to say."""


class Display:
    """Writes to one console; silent when ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        if not self.console.is_terminal:
            self.console.width = LOG_WIDTH

    def note(self, text: str) -> None:
        """One line, or paragraph, of news."""
        self._print(text)

    def warn(self, text: str) -> None:
        """A fallback or a correction, which must not be overlooked."""
        self._print(f"! {text}", style="yellow")

    def _print(self, text: str, style: str | None = None) -> None:
        """Folded at words on a terminal; whole lines in a file, for those who search it."""
        self.console.print(text, style=style, markup=False, soft_wrap=not self.console.is_terminal)

    @contextmanager
    def bar(self, what: str) -> Iterator[Advance]:
        """A bar for a stage of unknown length in units of (done, total); where there is no terminal, one line."""
        began = time.perf_counter()
        said = ""
        texts = ("{task.description:<24}", "{task.percentage:>3.0f}%", "{task.fields[facts]}")
        name, share, facts_column = map(TextColumn, texts)
        columns = (name, BarColumn(), share, TimeRemainingColumn(elapsed_when_finished=True), facts_column)
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            task = bars.add_task(what, total=None, facts="")

            def advance(done: int, total: int, facts: str = "") -> None:
                nonlocal said
                said = facts
                bars.update(task, completed=done, total=total, facts=facts)

            yield advance
        self.note(f"{what:<24} {time.perf_counter() - began:6.1f} s  {said}".rstrip())

    def plan(self, reasons: Sequence[tuple[str, Any, str]]) -> None:
        """The choices of the plan, each with its reason."""
        table = Table(box=None, pad_edge=False, header_style="dim", show_header=False)
        for style in ("cyan", "bold", "dim"):
            table.add_column(style=style)
        for key, value, reason in reasons:
            table.add_row(key, str(value), reason)
        self.console.print(table)


class TrainingBar:
    """The two lines that move while a model learns: what it has reached, and how far it has to go."""

    def __init__(self, display: Display, steps: int) -> None:
        self._console = display.console
        self._facts = Text(no_wrap=True, overflow="ellipsis")
        columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
        self._bar = Progress(*columns, console=self._console, expand=True)
        self._task: TaskID = self._bar.add_task("", total=steps)
        self._live = Live(Group(self._facts, self._bar), console=self._console, refresh_per_second=4)
        self._shown = 0.0

    def __enter__(self) -> TrainingBar:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, step: int, steps: int, facts: str) -> None:
        """Move to ``step`` of ``steps``."""
        self._facts.plain = facts
        self._bar.update(self._task, completed=step, total=steps)
        now = time.perf_counter()
        if not self._console.is_terminal and (now - self._shown >= LINE_EVERY or step == steps):
            self._shown = now
            self._console.print(f"step {step}/{steps}  {facts}", markup=False, soft_wrap=True)
