"""The command line itself: help, exit codes, and what a failure looks like."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from cyclopts import App

from bimo import __version__, cli, errors


class Called(NamedTuple):
    code: int
    out: str
    err: str


def call(*words: str) -> Called:
    """Run ``main()`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["bimo", *words])
        patch.delenv("FORCE_COLOR", raising=False)
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert isinstance(end.value.code, int)
    return Called(end.value.code, out.getvalue(), err.getvalue())


def assert_one_paragraph(called: Called) -> None:
    assert called.err.startswith("error: ") and called.err.count("\n") == 1 and called.err.endswith("\n")


def assert_usage_error(called: Called, *parts: str) -> None:
    assert called.code == 2
    assert_one_paragraph(called)
    assert all(part in called.err for part in parts), called.err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Puts a function of the test in the table of commands, as ``bimo do``."""

    def register(function: Callable[..., None]) -> None:
        module = types.ModuleType("commands_of_a_test")
        module.do = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(cli, "COMMANDS", {"do": f"{module.__name__}:do"})

    return register


def leaf_commands() -> list[tuple[str, ...]]:
    app = cli.application([])
    below = {name: [word for word in app[name] if not word.startswith("-")] for name in cli.COMMANDS}
    return [(name, *more) for name, words in below.items() for more in ([(word,) for word in words] or [()])]


def app_of(words: tuple[str, ...]) -> App:
    app = cli.application(list(words))
    for word in words:
        app = app[word]
    return app


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_every_command_with_its_line(words: tuple[str, ...]) -> None:
    called = call(*words)
    assert called.code == 0 and not called.err
    lines = dict(re.findall(r"^│ ([a-z][a-z-]*) +(\S.*?) *│$", called.out, flags=re.MULTILINE))
    assert list(lines) == list(cli.COMMANDS)
    assert all(len(line) > 10 and line.endswith(".") for line in lines.values()), lines


def test_version() -> None:
    assert call("--version") == Called(0, f"{__version__}\n", "")


def test_only_the_chosen_command_is_imported() -> None:
    code = (
        "import sys; from bimo import cli; cli.run(['info', '--help']);"
        "loaded = [name for name in sorted(sys.modules) if name.startswith('bimo.commands.')];"
        "print('\\n' + ' '.join(loaded), 'torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "bimo.commands.info bimo.commands.results False"


@pytest.mark.parametrize("words", leaf_commands(), ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    arguments = app_of(words).assemble_argument_collection(parse_docstring=True)
    assert not [argument.name for argument in arguments if not argument.parameter.help]


@pytest.mark.parametrize("words", leaf_commands(), ids=" ".join)
def test_help_shows_examples_that_are_right(words: tuple[str, ...]) -> None:
    text = call(*words, "--help").out
    prose = text.partition("╭")[0].splitlines()
    assert max(len(line.rstrip()) for line in prose) <= 80
    examples = re.findall(r"^    bimo (.*)$", text, flags=re.MULTILINE)  # a wrapped one is wrong or incomplete
    written = str(getattr(app_of(words).default_command, "__doc__", ""))
    assert len(examples) == written.count("\n        bimo ") and (examples or words == ("corpora", "list"))
    own = 0
    for example in examples:
        parts = shlex.split(re.split(r" [<>] ", example)[0])
        parts, _ = cli._without_debug(parts)
        cli.application(parts).parse_args(parts, exit_on_error=False, print_error=False)
        own += tuple(parts[: len(words)]) == words
    assert own or not examples


def test_unknown_command() -> None:
    assert_usage_error(call("trian", "--data", "x"), "trian", 'Did you mean "train"?')


def test_unknown_option() -> None:
    assert_usage_error(call("train", "--budgte", "3m"), "--budgte", "--budget")


def test_missing_and_superfluous_arguments() -> None:
    assert_usage_error(call("info"), "RUN")
    assert_usage_error(call("info", "a", "b"), "b")


def test_wrong_type_and_wrong_choice() -> None:
    assert_usage_error(call("generate", "run", "--top-k", "many"), "--top-k", "many")
    assert_usage_error(call("train", "--device", "cdua"), "--device", "cuda")


@pytest.mark.parametrize(
    ("raised", "code", "parts"),
    [
        (errors.UsageError("Wrong.", expected="a", got="b", fix="Do c."), 2, ["Wrong. Expected a; got b. Do c."]),
        (errors.ConfigError("Wrong key."), 2, ["Wrong key."]),
        (errors.DataError("No\ntext."), 1, ["No text."]),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/model"),
            1,
            ["runs/x/model", "No space", "Free some"],
        ),
        (OSError("I/O error: No space left on device (os error 28)"), 1, ["No space left", "Free some space"]),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/etc/x"), 1, ["/etc/x", "permissions"]),
        (OSError(errno.EIO, os.strerror(errno.EIO)), 1, [os.strerror(errno.EIO)]),
        (MemoryError(), 1, ["memory"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_failures_are_one_paragraph(
    command: Callable[..., None], raised: BaseException, code: int, parts: list[str]
) -> None:
    def do() -> None:
        raise raised

    command(do)
    called = call("do")
    assert called.code == code
    assert_one_paragraph(called)
    assert all(part in called.err for part in parts), called.err
    for words in (("do", "--debug"), ("--debug", "do")):
        debugged = call(*words)
        assert debugged.code == code
        assert "Traceback" in debugged.err and debugged.err.endswith(called.err)


def test_debug_by_environment(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def do() -> None:
        raise errors.DataError("No text.")

    command(do)
    monkeypatch.setenv("BIMO_DEBUG", "1")
    assert "Traceback" in call("do").err


def test_a_bug_is_not_hidden(command: Callable[..., None]) -> None:
    def do() -> None:
        raise ZeroDivisionError

    command(do)
    with pytest.raises(ZeroDivisionError):
        cli.run(["do"])


def test_interruption(command: Callable[..., None]) -> None:
    def do() -> None:
        raise KeyboardInterrupt

    command(do)
    assert call("do") == Called(130, "", "interrupted\n")


def test_a_closed_pipe_is_silent() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        finished = subprocess.run(
            [sys.executable, "-m", "bimo", "corpora", "list"], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (finished.returncode, finished.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("given", "understood", "debug"),
    [
        (["score", "run", "text"], ["score", "run", "text"], False),
        (["--debug", "score", "run"], ["score", "run"], True),
        (["score", "run", "-", "--json", "--debug"], ["score", "run", "--json", "--", "-"], True),
        (["score", "run", "--", "--debug"], ["score", "run", "--", "--debug"], False),
        (["score", "run", "--", "-"], ["score", "run", "--", "-"], False),
    ],
)
def test_debug_and_the_lone_dash(given: list[str], understood: list[str], debug: bool) -> None:
    assert cli._without_debug(given) == (understood, debug)


def test_texts_that_look_like_options(command: Callable[..., None]) -> None:
    seen: list[Any] = []

    def do(run: str, text: str = "", /, *, json: bool = False) -> None:
        seen.append((run, text, json))

    command(do)
    assert [call("do", "r", *words).code for words in (["-", "--json"], ["--", "--json"], ["-3"])] == [0, 0, 0]
    assert seen == [("r", "-", True), ("r", "--json", False), ("r", "-3", False)]


@pytest.mark.parametrize(
    ("words", "others", "given", "spins"),
    [
        (["--version"], 0, None, None),
        (["--version"], 1, None, "1000"),
        (["--version"], None, None, "1000"),
        (["serve", "--help"], 0, None, "1000"),
        (["--version"], 3, "77", "77"),
    ],
)
def test_threads_sleep_soon_beside_others(
    words: list[str], others: int | None, given: str | None, spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bimo", *words])
    monkeypatch.setattr(cli, "running_elsewhere", lambda: others)
    monkeypatch.setenv("GOMP_SPINCOUNT", given or "")
    if given is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
