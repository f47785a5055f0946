"""The command line: one table of commands, of which only the chosen one is imported; a failure is one paragraph."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterable

from cyclopts import App, CycloptsError, Parameter

from bimo import __version__
from bimo.commands.results import visible
from bimo.device import running_elsewhere
from bimo.errors import BimoError

COMMANDS = {
    "quickstart": "bimo.commands.quickstart:quickstart",
    "corpora": "bimo.commands.corpora:app",
    "prepare": "bimo.commands.prepare:prepare",
    "ledger": "bimo.commands.ledger:ledger",
    "plan": "bimo.commands.plan:plan",
    "train": "bimo.commands.train:train",
    "tune": "bimo.commands.tune:app",
    "doctor": "bimo.commands.doctor:doctor",
    "watch": "bimo.commands.watch:watch",
    "sweep": "bimo.commands.sweep:sweep",
    "import": "bimo.commands.import_:import_",
    "merge": "bimo.commands.merge:merge",
    "eval": "bimo.commands.eval:evaluate",
    "errors": "bimo.commands.errors:errors",
    "score": "bimo.commands.score:score",
    "classify": "bimo.commands.classify:classify",
    "translate": "bimo.commands.translate:translate",
    "summarise": "bimo.commands.summarise:summarise",
    "ask": "bimo.commands.ask:ask",
    "detect-watermark": "bimo.commands.detect_watermark:detect_watermark",
    "generate": "bimo.commands.generate:generate",
    "chat": "bimo.commands.chat:chat",
    "serve": "bimo.commands.serve:serve",
    "info": "bimo.commands.info:info",
}
INTERRUPTED = 130  # 128 + SIGINT, as shells count
REMEDIES = (
    ((errno.ENOSPC, errno.EDQUOT), "Free some space and try again; a run continues with --resume."),
    (
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Choose a place that you may write to, or change its permissions.",
    ),
)


def main() -> None:
    """Run the command in ``sys.argv`` and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    # Read when torch starts its threads. Waiting ones usually spin, which is the fastest; but where others need the
    # processor, or threads of our own as in a server, they had better sleep soon: we are many times slower otherwise.
    if sys.argv[1:2] == ["serve"] or running_elsewhere() != 0:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Iterable[str]) -> int:
    """Run one command and return its exit code."""
    words, debug = _without_debug(list(arguments))
    try:
        application(words)(words, result_action="return_none")
        sys.stdout.flush()
        return 0
    except CycloptsError as cause:
        return _report(str(cause), 2, debug)
    except BimoError as cause:
        return _report(str(cause), cause.exit_code, debug)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as cause:
        return _report(_explained(cause), 1, debug)
    except MemoryError:
        return _report("The memory is used up. Use a smaller model, batch.size or context.", 1, debug)
    except KeyboardInterrupt:
        return _report("", INTERRUPTED, debug)


def application(words: list[str]) -> App:
    """All commands, one of them loaded if ``words`` begin with it, else all, so that the help says what they do."""
    app = App(
        name="bimo",
        help="From a folder of text to a language model you own, understand and can vouch for.",
        version=__version__,
        help_format="plaintext",
        help_epilogue="--debug shows where an error comes from.",
        default_parameter=Parameter(negative_bool=(), negative_iterable=(), show_default=_shown_default),
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for position, (name, path) in enumerate(COMMANDS.items()):
        app.command(path, name=name, sort_key=position)
    if not words or words[0] not in COMMANDS:
        for name in COMMANDS:
            _ = app[name]
    return app


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """The words without ``--debug``, and whether it was there; a lone ``-`` (standard input) is made a plain word."""
    end = words.index("--") if "--" in words else len(words)
    options, plain = words[:end], words[end + 1 :]
    plain = [word for word in options if word == "-"] + plain
    debug = "--debug" in options or os.environ.get("BIMO_DEBUG") == "1"
    return [word for word in options if word not in ("--debug", "-")] + (["--", *plain] if plain else []), debug


def _shown_default(value: object) -> str | None:
    return None if value is None or value is False or value == "" else str(value)


def _report(problem: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {visible(' '.join(problem.split()))}" if problem else "interrupted", file=sys.stderr)
    return code


def _explained(cause: OSError) -> str:
    full = "No space left" in str(cause)  # libraries in other languages give no number
    code = errno.ENOSPC if full else cause.errno
    fix = next((fix for codes, fix in REMEDIES if code in codes), "")
    where = f"{cause.filename}: " if cause.filename else ""
    problem = f"{where}{cause.strerror or cause}."
    return str(BimoError(problem, fix=fix))
