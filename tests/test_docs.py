"""The pages a person reads say what the code does: generated pages, links, and every command line shown."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import pytest

from bimo.config import setting

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = {"", "sh", "bash", "shell"}


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and typing look modules up there
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def require(module: str) -> None:
    """Skip until ``module`` is written."""
    path = ROOT.joinpath(*module.split("."))
    if not (path.with_suffix(".py").exists() or (path / "__init__.py").exists()):
        pytest.skip(f"{module} is not written yet")


@pytest.mark.parametrize(("page", "module"), [("configuration.md", "bimo.train.config"), ("commands.md", "bimo.cli")])
def test_generated_pages_are_up_to_date(page: str, module: str) -> None:
    require(module)
    assert generate.main(["--check", page]) == 0, "run `make docs`"


@dataclasses.dataclass(frozen=True)
class Inner:
    """What is inside."""

    width: int | None = setting(None, "size of a state")
    ratio: float = setting(0.5, "a | b")


@dataclasses.dataclass(frozen=True)
class Outer:
    kind: Literal["cosine", "linear"] = setting("cosine", "which schedule")
    names: tuple[str, ...] = setting(("a", "b"), "some names")
    inner: Inner = setting(Inner, "nested")


def test_configuration_tables() -> None:
    top, heading, inner = generate._sections(Outer, "")
    assert '| `names` | list of str | `["a", "b"]` | some names |' in top
    assert "| `kind` | `cosine`, `linear` | `cosine` | which schedule |" in top
    assert heading == "## inner\n\nWhat is inside.\n"
    assert "| `inner.width` | int | chosen by the plan | size of a state |" in inner
    assert "| `inner.ratio` | float | `0.5` | a \\| b |" in inner


class Fence(NamedTuple):
    """One line inside a fenced block of a page."""

    page: Path
    language: str
    line: str


def fenced_lines(page: Path) -> Iterator[Fence]:
    blocks = re.findall(
        r"^ *```([\w-]*)[^\n]*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for language, block in blocks:
        for line in re.sub(r"\\\n", " ", block).splitlines():
            yield Fence(page, language, line.strip())


def command_lines(program: str) -> Iterator[tuple[Path, list[str]]]:
    """The words of every line that calls ``program``: after ``$ `` anywhere, or plainly in a shell block."""
    for page, language, line in (fence for path in PAGES for fence in fenced_lines(path)):
        prompt, command = line.startswith("$ "), line.removeprefix("$ ")
        if not command.startswith(program + " ") or not (prompt or language in SHELLS):
            continue
        command = re.split(r"\s(?:\||>|>>|&&|&|;)(?:\s|$)", command, maxsplit=1)[0]
        words = shlex.split(command, comments=True)
        yield page, [word.strip("[]") for word in words[1:]]


def wrong_part(words: list[str]) -> str | None:
    """The first command or option of a ``bimo`` call that the program does not have."""
    known = set(generate.commands())
    command: tuple[str, ...] = ()
    while words and (*command, words[0]) in known:
        command, words = (*command, words[0]), words[1:]
    takes_commands = any(other[: len(command)] == command and other != command for other in known)
    if takes_commands and words and not words[0].startswith("-"):
        return words[0]
    options = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", generate.help_of(command, columns=300)))
    used = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((option for option in used if option not in options | {"--help", "--version"}), None)


def test_shown_commands_exist() -> None:
    require("bimo.cli")
    wrong = [f"{page.name}: {' '.join(words)}" for page, words in command_lines("bimo") if wrong_part(words)]
    assert not wrong


def test_a_wrong_command_is_noticed() -> None:
    require("bimo.cli")
    assert wrong_part(["trian", "--data", "x"]) == "trian"
    assert wrong_part(["train", "--dta", "x"]) == "--dta"
    assert wrong_part(["train", "--data", "x"]) is None


def test_shown_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    wrong = [f"{page.name}: make {words[0]}" for page, words in command_lines("make") if words[0] not in targets]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert not [target for target in local if not (page.parent / target).exists()]
