from __future__ import annotations

import io
import sys

import pytest

from bimo.commands import results
from bimo.errors import UsageError
from bimo.evaluate.intervals import Measured


def test_tables_are_not_cut_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    results.print_table(("name", "n"), [("x" * 300, "1"), ("[bold]曹操[/bold]", "22")], right=("n",))
    assert capsys.readouterr().out.splitlines() == [
        "name" + 299 * " " + "n",
        "x" * 300 + "   1",
        "[bold]曹操[/bold]" + (300 - 17) * " " + "  22",
    ]


def test_numbers_with_intervals() -> None:
    assert results.with_interval(Measured(2.13449, 2.1, 2.17, "")) == "2.134 (95%: 2.100 to 2.170)"
    assert results.with_interval(Measured(1234.56, None, None, ""), 1) == "1,234.6"


def test_control_characters_are_written_out() -> None:
    assert results.visible("a\n曹\x1b[2J\\xe5") == "a\\n曹\\x1b[2J\\xe5"


def test_text_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, expected in ((b"\xe6\x9b\xb9\n", "曹\n"), (b"", "")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
        assert results.text_argument("-") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff"), encoding="utf-8"))
    with pytest.raises(UsageError, match="UTF-8"):
        results.text_argument("-")


def test_arguments_that_are_not_utf8() -> None:
    assert results.text_argument("--") == "--"
    with pytest.raises(UsageError, match="UTF-8"):
        results.text_argument(b"a\xff".decode("utf-8", "surrogateescape"))
