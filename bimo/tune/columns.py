"""Which column is what: as the user says, else by the names that such columns usually have, else the only one left."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bimo.errors import UsageError, did_you_mean
from bimo.text.scripts import is_chinese
from bimo.tune.rows import Row, Rows

if TYPE_CHECKING:
    from bimo.tune.task import Role

NEAR = 0.7  # likeness of two names from which one may be the other misspelt
COUNTS = ("", "id", "index", "idx", "row", "number", "编号", "序号")  # names of what only tells rows apart


def find_columns(rows: Rows, roles: Sequence[Role], named: Mapping[str, str]) -> dict[str, str]:
    """The column of each role that is there.

    Args:
        named: role -> column, as the user says.

    Raises:
        UsageError: a column that was named is not there, or one that is needed cannot be told; says which are there.
    """
    found: dict[str, str] = {}
    for role in roles:
        if column := named.get(role.name):
            if column not in rows.columns:
                problem = f"{rows.name} has no column '{column}' to be the {role.name}."
                raise UsageError(problem, expected=_listed(rows.columns), fix=did_you_mean(column, rows.columns))
            found[role.name] = column
    taken = set(found.values())
    for role in roles:
        if role.name not in found:
            column = next((name for name in _likely(rows.columns, role) if name not in taken), None)
            if column is not None:
                found[role.name] = column
                taken.add(column)
    missing = [role for role in roles if role.needed and role.name not in found]
    free = [column for column in rows.columns if column not in taken]
    telling = [column for column in free if not _ends(_plain(column), COUNTS)]
    if len(missing) == len(telling) == 1:
        found[missing[0].name] = telling[0]
    elif missing:
        names = " and ".join(role.name for role in missing)
        example = " ".join(f"{role.name}={_nearest(free, role) or 'NAME'}" for role in missing)
        raise UsageError(
            f"No column of {rows.name} is called like the {names}.",
            expected=f"one called {' or '.join(missing[0].usual[:4])}",
            got=_listed(rows.columns),
            fix=f"Say which it is: --columns {example}.",
        )
    return found


def by_role(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with its values under the names of their roles; empty ones are left out."""
    values = {role: row.values.get(column) for role, column in columns.items()}
    return Row(row.number, row.where, {role: value for role, value in values.items() if value not in (None, "", [])})


def _likely(columns: Sequence[str], role: Role) -> list[str]:
    """The columns that may be the role's, the likeliest first: those of a usual name, then those that end with one.

    What a name is about stands at its end in English and in Chinese (``review_text``, 商品评论, but ``text_id``). A
    role that need not be there is given no column for the end of its name alone.
    """
    plain = {_plain(column): column for column in reversed(columns)}
    named = [plain[name] for name in role.usual if name in plain]
    return named + [plain[name] for usual in role.usual if role.needed for name in plain if _ends(name, (usual,))]


def _ends(name: str, usual: Sequence[str]) -> bool:
    """Whether it is one of these names, or ends with one as its last word."""
    return any(name == one or (one and name.endswith(one if is_chinese(one) else f"_{one}")) for one in usual)


def _plain(column: str) -> str:
    """A name in lower case, its words joined by underscores: ``Review Text`` and ``reviewText`` are one."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s_-]+", "_", words).lower()


def _nearest(columns: Sequence[str], role: Role) -> str:
    """The column whose name is written most like a usual one; empty where none is near."""
    plain = {_plain(column): column for column in columns}
    likeness = {
        column: max(difflib.SequenceMatcher(None, name, usual).ratio() for usual in role.usual)
        for name, column in plain.items()
    }
    best = max(likeness, key=likeness.__getitem__, default="")
    return best if likeness.get(best, 0.0) >= NEAR else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"one of {', '.join(names[:12])}{more}" if names else "columns"
