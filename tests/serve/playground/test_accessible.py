"""The page as axe-core finds it, in each state, light and dark, wide and narrow."""

from __future__ import annotations

import pytest

from tests.serve.playground.driving import Open, Serve, finish, write

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_accessible(serve: Serve, open_page: Open, axe: str, scheme: str, width: int) -> None:
    page = open_page(
        serve(), width=width, color_scheme=scheme, reduced_motion="reduce", locale="zh-CN" if width == 390 else "en-US"
    )
    page.evaluate(axe)

    def look(where: str) -> None:
        found = page.evaluate("axe.run({resultTypes: ['violations']}).then(({violations}) => violations)")
        shown = [
            (one["id"], [(node["target"], node.get("failureSummary")) for node in one["nodes"][:3]]) for one in found
        ]
        assert not shown, (where, shown)

    look("first load")
    write(page, "Once upon a time there was")
    finish(page)
    for reading in ("probability", "surprise", "off"):
        page.click(f"[data-reading={reading}]")
        look(reading)
    page.focus(".writing")
    page.keyboard.press("Alt+ArrowDown")
    look("alternatives")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+Enter")
    finish(page)
    look("branches")
    page.keyboard.press("Alt+c")
    look("request")
    page.keyboard.press("Escape")
    page.keyboard.press("F1")
    look("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+2")
    look("chat, empty")
    page.fill(".composer textarea", "markdown")
    page.keyboard.press("Enter")
    finish(page)
    look("chat")
    page.keyboard.press("Alt+3")
    page.fill("#compare-prompt", "Once")
    page.keyboard.press("Control+Enter")
    finish(page)
    look("compare")
    page.keyboard.press("Alt+s")
    look("settings")
