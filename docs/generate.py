"""Write the pages of this folder that are taken from the code: the configuration keys and the commands.

Run ``make docs``; ``python docs/generate.py --check`` only says which pages are stale (exit code 1).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

DOCS = Path(__file__).parent
WIDTH = 100
NOTICE = "<!-- Written by docs/generate.py from the code; change the code, then run `make docs`. -->"

CONFIGURATION = """\
# Configuration

{notice}

Every key that `bimo train CONFIG.yaml` reads. The same keys can be given as `--set key=value`. What the budget plan
chooses can be pinned here; the run's `bimo.yaml` shows every key with the value that was used.
"""

PREPARATION = """\
# Settings of bimo prepare

Every key of `bimo prepare --config RECIPE.yaml`, which `--set key=value` takes too; the folder's `recipe.json` shows
the values that were used. What the cleaning steps do, and where their rules come from: [cleaning](cleaning.md).
"""

TUNING = """\
# Settings of bimo tune

`bimo tune TASK` reads the keys of training above, without those of text and shape, which come with the rows and the
model, and these:
"""

TASK = """\
## options, of the task {name}

{meaning}
"""

GUARD = """\
# Settings of a guard

Every key of the file that `bimo serve RUN --guard GUARD.yaml` reads; what it does: [serving](serving.md).
"""

CLEANING = """\
# The cleaning steps

{notice}

What `bimo prepare` does to a document, in this order; every step can be switched (`--set clean.NAME.on=false`), all of
them with `--raw`, and `bimo ledger` tells what each did to which document. [The settings](configuration.md) are listed
with those of training.
"""

COMMANDS = """\
# Commands

{notice}

What `bimo --help` says, for every command.
"""


def configuration_page() -> str:
    """The configuration reference, one table for each nested dataclass."""
    config = importlib.import_module("bimo.train.config").TrainConfig
    recipe = importlib.import_module("bimo.text.prepare.recipe").Recipe
    guard = importlib.import_module("bimo.serve.guard").GuardConfig
    training, preparing, guarding = (_sections(owner, prefix="") for owner in (config, recipe, guard))
    tuning = [TUNING, *_tuning(config)]
    parts = [CONFIGURATION.format(notice=NOTICE), *training, *tuning, PREPARATION, *preparing, GUARD, *guarding]
    return "\n".join(parts)


def _tuning(training: type) -> Iterator[str]:
    """What the configuration of a tuning run adds to that of a training, and the options of every task."""
    config = importlib.import_module("bimo.tune.config").TuneConfig
    yield from _sections(config, prefix="", leave_out=frozenset(training.__annotations__))
    for name, path in importlib.import_module("bimo.tune.tasks").TASKS.items():
        module, _, kind = path.partition(":")
        task = getattr(importlib.import_module(module), kind)
        yield TASK.format(name=name, meaning=_cell((task.__doc__ or "").partition(chr(10))[0]))
        yield from _sections(task, prefix="options.")


def cleaning_page() -> str:
    """What every cleaning step says of itself."""
    recipe = importlib.import_module("bimo.text.prepare.recipe")
    sections = []
    for field in dataclasses.fields(recipe.Clean):
        module = importlib.import_module(f"bimo.text.clean.{field.name}")
        state = "on" if module.Config.__dataclass_fields__["on"].default else "off"
        text = re.sub(r"``([^`]*)``", r"`\1`", re.sub(r":\w+:`([^`]*)`", r"`\1`", (module.__doc__ or "").strip()))
        sections.append(f"## {field.name}\n\n*{state} by default*\n\n{text}\n")
    return "\n".join([CLEANING.format(notice=NOTICE), *sections])


def _sections(config: type, prefix: str, leave_out: Collection[str] = ()) -> Iterator[str]:
    hints = typing.get_type_hints(config)
    rows, nested = [], []
    for field in dataclasses.fields(config):
        hint, key = hints[field.name], prefix + field.name
        if field.name in leave_out:
            continue
        inner = next((one for one in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(one)), None)
        if inner is not None:  # one that may be left out, too
            nested.append((key, typing.cast(type, inner)))
            continue
        meaning = field.metadata.get("doc", "")
        rows.append(f"| `{key}` | {shown_type(hint)} | {shown_default(field)} | {_cell(meaning)} |")
    if rows:
        yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])
    for key, owner in nested:
        yield f"## {key}\n\n{_cell((owner.__doc__ or '').partition(chr(10))[0])}\n"
        yield from _sections(owner, prefix=key + ".")


def shown_type(hint: Any) -> str:
    """A type as a YAML author thinks of it: ``int``, ``list of str``, or the values to choose from."""
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    origin = typing.get_origin(hint)
    if origin is Literal:
        return ", ".join(f"`{option}`" for option in options)
    if origin in (tuple, list):
        return f"list of {shown_type(options[0])}"
    return shown_type(options[0]) if options else getattr(hint, "__name__", str(hint))


def shown_default(field: dataclasses.Field[Any]) -> str:
    """The default as YAML; a key without one is left to the plan."""
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    if made is None:
        return "chosen by the plan"
    plain = isinstance(made, str) and made.isprintable() and made
    return f"`{made if plain else json.dumps(made, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


@functools.cache
def help_of(command: tuple[str, ...], columns: int = WIDTH) -> str:
    """What ``bimo COMMAND --help`` prints on a plain terminal of that width."""
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
    environment.pop("FORCE_COLOR", None)
    arguments = [sys.executable, "-m", "bimo", *command, "--help"]
    finished = subprocess.run(
        arguments, cwd=DOCS.parent, env=environment, check=True, capture_output=True, encoding="utf-8"
    )
    return "\n".join(line.rstrip() for line in finished.stdout.strip("\n").splitlines())


def commands(command: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All commands, each as its words after ``bimo``; the empty tuple, ``bimo`` itself, comes first."""
    yield command
    for name in re.findall(r"^│ ([a-z][a-z0-9-]*) ", help_of(command), flags=re.MULTILINE):
        yield from commands((*command, name))


def commands_page() -> str:
    """The help of every command."""
    sections = [f"## {' '.join(('bimo', *command))}\n\n```text\n{help_of(command)}\n```\n" for command in commands()]
    return "\n".join([COMMANDS.format(notice=NOTICE), *sections])


PAGES = {"configuration.md": configuration_page, "cleaning.md": cleaning_page, "commands.md": commands_page}


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with ``--check`` compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a page is stale")
    parser.add_argument("pages", nargs="*", default=[], help=f"which of {', '.join(PAGES)}; all if none is named")
    options = parser.parse_args(arguments)
    stale = []
    for name in options.pages or PAGES:
        path, content = DOCS / name, PAGES[name]()
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(name)
        if not options.check:
            path.write_text(content, encoding="utf-8")
            print(f"wrote {path}")
    if options.check and stale:
        print(f"stale: {', '.join(stale)}. Run `make docs`.")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
