"""What the tests of the playground do with its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.serve.playground.fake_api import Fake

IDLE = "html:not(.busy)"
Open = Callable[..., Any]
Serve = Callable[..., Fake]


def text_of(page: Any) -> str:
    return page.input_value(".writing")


def write(page: Any, text: str) -> None:
    page.fill(".writing", text)
    page.keyboard.press("Control+Enter")


def finish(page: Any) -> None:
    page.wait_for_selector(IDLE)
    page.evaluate("new Promise(requestAnimationFrame)")


def until(page: Any, expression: str) -> None:
    """Wait for it; Playwright's own way is code in a string, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never came true: {expression}")


def middle_of(token: Any) -> tuple[float, float]:
    """Where a token is drawn; of one in which a line breaks, on its last line: between both nothing is."""
    drawn = token.evaluate("one => [...one.getClientRects()].at(-1).toJSON()")
    return drawn["x"] + drawn["width"] / 2, drawn["y"] + drawn["height"] / 2


def set_to(page: Any, setting: str, value: object) -> None:
    page.fill(f"#set-{setting}", str(value))
    page.press(f"#set-{setting}", "Enter")


def requests(server: Fake, path: str = "/v1/completions") -> list[dict[str, Any]]:
    return [body for asked, body in server.asked if asked == path]
