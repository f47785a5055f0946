"""What an answer is worth: functions of a user's own file, and the verifiable ones that come along.

A reward function gets lists of equal length by name, whichever it names: ``prompts``, ``completions`` (the answers as
texts) and the columns of the data; it returns a number for each. Functions written for TRL's GRPOTrainer on plain texts
work as they are.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import inspect
import json
import math
import numbers
import re
import signal
import sys
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from bimo.errors import BimoError, DataError, TrainingError, UsageError, did_you_mean

GIVEN = ("prompts", "completions")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
SHOWN = 120  # characters of an answer in an error

# What a user's function may raise is anything.
_Failure = Exception


class _TimeUp(BaseException):
    """No ``Exception``, so that a user's own handler does not take it for one of its errors."""


@dataclass(frozen=True)
class Reward:
    """A reward function that is ready to be called.

    Attributes:
        name: as the user wrote it.
        function: see the head of this file.
        columns: of the data that it names; None = it takes all there are.
        seconds: that one call may take.
        sha256: of the file that it is from.
    """

    name: str
    function: Callable[..., Any]
    columns: frozenset[str] | None
    seconds: float
    sha256: str = ""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> list[float]:
        """The reward of each completion, a finite number.

        Args:
            rows: the row of the data that each prompt is from.

        Raises:
            TrainingError: the function fails, takes too long, or returns anything else; names the line or the answer.
        """
        known = list(dict.fromkeys(key for row in rows for key in row))
        wanted = known if self.columns is None else sorted(self.columns - set(GIVEN))
        given = {name: [row.get(name) for row in rows] for name in wanted}
        for name, values in zip(GIVEN, (prompts, completions), strict=True):
            if self.columns is None or name in self.columns:
                given[name] = list(values)
        try:
            with _time_limit(self.seconds):
                values = self.function(**given)
        except _TimeUp:
            raise self._error(f"took more than {self.seconds:g} seconds", "an answer in time") from None
        except BimoError:
            raise
        except _Failure as cause:
            raise self._error(f"{type(cause).__name__}: {cause}{self._place(cause)}", "numbers") from None
        return self._checked(values, completions)

    def _checked(self, values: Any, completions: Sequence[str]) -> list[float]:
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise self._error(f"{type(values).__name__}: {str(values)[:SHOWN]}", "a list of numbers")
        if len(values) != len(completions):
            raise self._error(f"{len(values)} values", f"{len(completions)} numbers, one for each completion")
        for value, completion in zip(values, completions, strict=True):
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                shown = completion if len(completion) <= SHOWN else completion[:SHOWN] + "..."
                raise self._error(f"{value!r} for {shown!r}", "a finite number for each completion")
        return [float(value) for value in values]

    def _place(self, cause: BaseException) -> str:
        """Where in the user's own file it happened."""
        file = inspect.getsourcefile(inspect.unwrap(self.function))
        frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == file]
        return f", in line {frames[-1].lineno} of {Path(str(file)).name}" if frames else ""

    def _error(self, got: str, expected: str) -> TrainingError:
        fix = "Nothing is lost: correct the function, then go on with --resume."
        return TrainingError(f"The reward function {self.name} failed.", expected=expected, got=got, fix=fix)


def open_reward(name: str, columns: Sequence[str], *, seconds: float = 60.0) -> Reward:
    """The reward of this name: ``FILE.py:function``, one of :data:`REWARDS`, or ``regex:PATTERN``.

    Args:
        columns: that the data has.
        seconds: that one call may take.

    Raises:
        UsageError: there is no such function, or it wants a column that is not there.
    """
    kind, colon, rest = name.partition(":")
    sha256 = ""
    if name in REWARDS:
        function = REWARDS[name]
    elif kind == "regex" and colon:
        function = _matching(rest)
    else:
        function, sha256 = _from_file(name)
    return Reward(name, function, _columns_of(name, function, columns), seconds, sha256)


def _columns_of(name: str, function: Callable[..., Any], columns: Sequence[str]) -> frozenset[str] | None:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    known = [*GIVEN, *columns]
    for parameter in parameters:
        if parameter.name not in known and parameter.default is parameter.empty:
            problem = f"The reward function {name} wants '{parameter.name}', which the data does not have."
            raise UsageError(problem, expected=f"some of {', '.join(known)}", fix=did_you_mean(parameter.name, known))
    return frozenset(parameter.name for parameter in parameters if parameter.name in known)


def _from_file(name: str) -> tuple[Callable[..., Any], str]:
    """The function of a user's file, which is run, and the file's hash."""
    path_text, _, function_name = name.rpartition(":")
    path = Path(path_text)
    if not path_text.endswith(".py") or not function_name:
        near = difflib.get_close_matches(name, REWARDS, n=1, cutoff=0.5)
        fix = f"Did you mean '{near[0]}'?" if near else ""
        raise UsageError(
            f"There is no reward '{name}'.",
            expected=f"FILE.py:function, regex:PATTERN or {', '.join(REWARDS)}",
            fix=fix,
        )
    try:
        source = path.read_bytes()
    except OSError as cause:
        raise UsageError(f"The reward file {path} cannot be read.", got=str(cause)) from None
    digest = hashlib.sha256(source).hexdigest()
    spec = importlib.util.spec_from_file_location(f"bimo_reward_{digest[:12]}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except _Failure as cause:
        frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == str(path)]
        line = f", in line {frames[-1].lineno}" if frames else ""
        raise UsageError(f"{path} cannot be imported.", got=f"{type(cause).__name__}: {cause}{line}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UsageError(f"{path} has no function '{function_name}'.", fix=did_you_mean(function_name, there))
    return function, digest


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TimeUp in the block after so long, where the system can interrupt it: in the main thread of Unix."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(number: int, frame: object) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def last_number(text: str) -> Decimal | None:
    """The last number in a text, in digits of any width, with or without commas between thousands."""
    found = NUMBER.findall(unicodedata.normalize("NFKC", text).replace("\u2212", "-"))
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None


def number(completions: Sequence[str], answer: Sequence[Any]) -> list[float]:
    """1 where the last number of the completion is that of the ``answer``, else 0."""
    pairs = [(last_number(said), last_number(str(right))) for said, right in zip(completions, answer, strict=True)]
    if any(right is None for _, right in pairs):
        raise DataError("There is an answer without a number in it.", expected="a number in each 'answer'")
    return [float(said == right) for said, right in pairs]


def exact(completions: Sequence[str], answer: Sequence[Any]) -> list[float]:
    """1 where the completion is the ``answer``, whatever the case, the width and the space around it, else 0."""
    return [float(_plain(said) == _plain(str(right))) for said, right in zip(completions, answer, strict=True)]


def is_json(completions: Sequence[str]) -> list[float]:
    """1 where the completion is a JSON object, else 0."""
    return [float(_holds_object(said)) for said in completions]


REWARDS: dict[str, Callable[..., list[float]]] = {"number": number, "exact": exact, "json": is_json}


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _holds_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _matching(pattern: str) -> Callable[[Sequence[str]], list[float]]:
    """1 where the whole completion, without the space around it, is of the pattern, else 0."""
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except (re.error, RecursionError, OverflowError) as cause:
        raise UsageError(f"The pattern {pattern} is no regular expression.", got=str(cause)) from None

    def matches(completions: Sequence[str]) -> list[float]:
        return [float(compiled.fullmatch(said.strip()) is not None) for said in completions]

    return matches
