"""From a record (a row, a JSON object) to its text: by a column, by a template, or by the usual names."""

from __future__ import annotations

import datetime
import email.utils
import functools
import re
import string
from collections.abc import Collection, Mapping
from typing import Any

from bimo.errors import ConfigError, did_you_mean
from bimo.text.decode import Unreadable
from bimo.text.readers.record import Bad, Options, Record, Text, with_newlines

DEFAULT = Options().text_column
USUAL = ("content", "body", "raw_content", "article", "document", "passage", "sentence", "正文", "内容", "內容", "文本")
MILLISECONDS = 1e11  # a larger number of seconds would be after the year 5000


class Columns:
    """What the options say about columns, applied to one record after the other.

    Args:
        usual: whether a column of a usual name is taken where there is none of the default one.

    Attributes:
        named: whether the user has named columns.
    """

    def __init__(self, options: Options, *, usual: bool = True) -> None:
        self._options, self._usual = options, usual
        self._pieces = parse_template(options.template)
        self._simple = not (self._pieces or options.time_column)
        self.named = bool(self._pieces) or options.text_column != DEFAULT

    def missing(self, names: Collection[str]) -> str:
        """Which of the columns that make the text a table does not have, if one: ``no column 'body' ...``."""
        missing = next((name for name in self._wanted(names)[0] if name not in names), None)
        return "" if missing is None else _no_column(missing, names, self._pieces)

    def needed(self, names: Collection[str]) -> list[str]:
        """Which of the columns of a table are read.

        Raises:
            Unreadable: one that must be there is not.
        """
        if missing := self.missing(names):
            raise Unreadable(missing)
        wanted = {*self._wanted(names)[0], self._options.time_column}
        return [name for name in names if name in wanted]

    def text(self, key: str, where: str, record: Any) -> Record:
        """The text of a record, which is a mapping or, in JSON, the text itself."""
        if self._simple and isinstance(record, dict):  # what nearly every record is
            text = record.get(self._options.text_column)
            if isinstance(text, str):
                return Text(key, with_newlines(text))
        notes: tuple[str, ...] = ()
        time = ""
        if isinstance(record, dict):
            wanted, notes = self._wanted(record)
            if missing := [name for name in wanted if name not in record]:
                return Bad(where, _no_column(missing[0], record, self._pieces))
            if self._options.time_column:
                time, problem = _time(record, self._options.time_column)
                notes += problem
            record = self._filled(record) if self._pieces else record[wanted[0]]
        if isinstance(record, Bad):
            return Bad(where, record.reason)
        if not isinstance(record, str):
            return Bad(where, f"the text is of type {type(record).__name__}, not a string")
        return Text(key, with_newlines(record), time=time, notes=notes)

    def _wanted(self, names: Collection[str]) -> tuple[list[str], tuple[str, ...]]:
        """The columns that make the text, and a note where a usual name was taken for the default one."""
        if self._pieces:
            return [name for _, name in self._pieces if name is not None], ()
        column = self._options.text_column
        if column not in names and column == DEFAULT and self._usual:
            found = [name for name in USUAL if name in names]
            if len(found) == 1:
                return found, (f"text from column '{found[0]}'",)
        return [column], ()

    def _filled(self, record: Mapping[str, Any]) -> str | Bad:
        filled = []
        for literal, name in self._pieces:
            filled.append(literal)
            value = "" if name is None else record[name]
            if isinstance(value, (str, int, float)):
                filled.append(str(value))
            elif value is not None:
                return Bad("", f"column '{name}' is of type {type(value).__name__}, which a template cannot show")
        return "".join(filled)


def parse_template(template: str) -> list[tuple[str, str | None]]:
    r"""Split ``"{title}\n{body}"`` into pairs of literal text and the column after it, None at the end.

    A backslash and n or t mean what they mean in Python; braces are doubled to stand for themselves.

    Raises:
        ConfigError: there is more in braces than the name of a column, or there are no columns.
    """
    try:
        parsed = list(string.Formatter().parse(template.replace("\\n", "\n").replace("\\t", "\t")))
    except ValueError as cause:
        raise ConfigError("The template is broken.", got=f"{template!r}: {cause}", fix=r"{title}\n\n{body}") from None
    names = [name for _, name, _, _ in parsed if name is not None]
    plain = all(not spec and not conversion for _, _, spec, conversion in parsed)
    if template and not (names and all(names) and plain):
        expected = r"names of columns in braces, such as {title}\n\n{body}"
        raise ConfigError("The template is not usable.", expected=expected, got=repr(template))
    return [(literal, name) for literal, name, _, _ in parsed]


def _time(record: Mapping[str, Any], column: str) -> tuple[str, tuple[str, ...]]:
    """The time of a record in ISO 8601, or a note on why there is none."""
    if column not in record:
        return "", (f"no time: no column '{column}'",)
    found = iso_time(record[column])
    return found, () if found else (f"no time: '{str(record[column])[:40]}'",)


def iso_time(value: Any) -> str:
    """ISO 8601 from what people write into records (year, date, RFC 2822, seconds since 1970), ``""`` from others."""
    if re.fullmatch(r"[12]\d{3}(-\d\d)?", str(value)):
        return str(value)
    try:
        if isinstance(value, (datetime.date, datetime.datetime)):
            return value.isoformat()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) > MILLISECONDS else value
            return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
        return _parsed(str(value).strip())
    except (ValueError, OverflowError, OSError, TypeError):
        return ""


def _parsed(text: str) -> str:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return email.utils.parsedate_to_datetime(text).isoformat()
    return text if len(text) == len("2026-01-31") else found.isoformat()


def _no_column(wanted: str, names: Collection[str], template: object) -> str:
    return _cached_no_column(wanted, tuple(str(name)[:40] for name in names)[:20], bool(template))


@functools.lru_cache(maxsize=64)
def _cached_no_column(wanted: str, known: tuple[str, ...], template: bool) -> str:
    return f"no column '{wanted}' (see --{'template' if template else 'text-column'}). {did_you_mean(wanted, known)}"
