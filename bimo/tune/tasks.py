"""The tasks by name; a task is one file, and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from bimo.config import from_mapping
from bimo.errors import UsageError, did_you_mean
from bimo.tune.task import Task

TASKS = {
    "chat": "bimo.tune.chat:Chat",
    "classify": "bimo.tune.classify:Classify",
    "label": "bimo.tune.label:Label",
    "qa": "bimo.tune.qa:QA",
    "summarise": "bimo.tune.summarise:Summarise",
    "translate": "bimo.tune.translate:Translate",
    "code": "bimo.tune.code:Code",
    "prefer": "bimo.tune.prefer:Prefer",
    "reinforce": "bimo.tune.reinforce:Reinforce",
}


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of this name with its settings.

    Raises:
        UsageError: there is no such task, or it has no such setting.
    """
    if name not in TASKS:
        raise UsageError(f"There is no task '{name}'.", fix=did_you_mean(name, TASKS))
    module, _, kind = TASKS[name].partition(":")
    task: Task = from_mapping(getattr(importlib.import_module(module), kind), options, where=f"task {name}")
    return task
