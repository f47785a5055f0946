"""What tuned chat models say, beside the models before: the same turns of a person, the likeliest token at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reaching.rows import CACHE, RESULTS, ROOT, ROWS, Row, Talk
from benchmarks.training.table import replace_between
from bimo import files
from bimo.generate.conversation import Conversation
from bimo.generate.language_model import LanguageModel, load

TALKS = RESULTS / "talks"
LONGEST = 120  # tokens of an answer


def record(row: Row, start: Path) -> None:
    """Let both models answer, once; a file of results/reach/talks/ keeps it."""
    path = TALKS / f"{row.name}.json"
    if row.talks and not path.is_file():
        before, after = (answers(load(folder), row.talks) for folder in (start, CACHE / "runs" / f"{row.name}-0"))
        files.write_json(path, {"row": row.name, "talks": row.talks, "before": before, "after": after})


def answers(model: LanguageModel, talks: Sequence[Talk]) -> list[list[str]]:
    """The replies to every turn; a model that cannot chat continues the bare text."""
    options: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": LONGEST}
    if model.conventions.no_chat is not None:
        return [[model.generate(turn, **options)[0].strip() for turn in talk] for talk in talks]
    found = []
    for talk in talks:
        conversation = Conversation(model)
        found.append(["".join(conversation.say(turn, **options)).strip() for turn in talk])
    return found


def write_page() -> None:
    """Put the talks that are there into docs/talks.md."""
    kept = [files.read_json(path) for name in ROWS if (path := TALKS / f"{name}.json").is_file()]
    replace_between(ROOT / "docs" / "talks.md", "talks", "\n".join(map(_talks, kept)) or "None yet.\n")


def _talks(kept: Mapping[str, Any]) -> str:
    row = ROWS[kept["row"]]
    lines = [f"## {row.what}", "", f"`bimo tune {' '.join(row.command)}` on `{'`, `'.join(row.data)}`:", ""]
    for turns, before, after in zip(kept["talks"], kept["before"], kept["after"], strict=True):
        for turn, once, now in zip(turns, before, after, strict=True):
            lines += [f"**{turn}**", "", *_answer("before", once), *_answer("tuned", now)]
    return "\n".join(lines)


def _answer(who: str, text: str) -> list[str]:
    """A fenced block, which shows an answer as it is, whatever marks it holds."""
    fence = max(["``", *re.findall("`+", text)], key=len) + "`"
    return [f"{who}:", "", f"{fence}text", text or "(nothing)", fence, ""]
