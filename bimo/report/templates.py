"""The templates of the pages, in which whatever is filled in is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from bimo.report import facts as read
from bimo.report.words import clock, duration, translated


def load(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A template of this folder, with the filters of all pages and its own."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {name: getattr(read, name) for name in ("figure", "whole", "size", "count")}
    environment.filters.update(formats, clock=clock, duration=duration, translated=translated, quoted=shlex.quote)
    environment.filters.update(filters)
    return environment.get_template(name)


def rendered(template: jinja2.Template, **values: Any) -> str:
    """The page; half a surrogate pair, from a file name, becomes a question mark."""
    return template.render(values).strip().encode("utf-8", "replace").decode("utf-8") + "\n"
