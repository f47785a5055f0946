"""The playground and the run's report, as the server sends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bimo.generate.language_model import LanguageModel
from bimo.serve.pages import pages
from tests.serve.live import Live, serving

KEY = "ann-0123456789abcdef"


@pytest.fixture(scope="module")
def whole(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    report = tmp_path_factory.mktemp("run") / "report.html"
    report.write_text("<!DOCTYPE html><title>报告</title>", encoding="utf-8")
    with serving(model, report=report, keys={"ann": KEY}, pages=True) as live:
        yield live


@pytest.mark.parametrize("address", pages())
def test_every_page_is_sent_as_it_is_without_a_key(whole: Any, address: str) -> None:
    answer = whole.send(address)
    page = pages()[address]
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, page.body, page.content_type)
    assert {name.lower(): value for name, value in page.headers.items()}.items() <= answer.headers.items()
    again = whole.send(address, headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", page.headers["ETag"])


@pytest.mark.parametrize(
    "address", ["/playground/", "/playground/../pages.py", "/playground/%2e%2e/pages.py", "/main.js"]
)
def test_nothing_else_is_sent(whole: Any, address: str) -> None:
    assert whole.send(address, headers={"Authorization": f"Bearer {KEY}"}).status == 404


def test_a_link_from_another_page_opens_the_page_and_reaches_nothing_else(whole: Any) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert whole.send("/", headers=followed).status == 200
    assert whole.send("/", headers={**followed, "Sec-Fetch-Mode": "no-cors"}).status == 403
    assert whole.send("/", headers={**followed, "Origin": "https://evil.example"}).status == 403
    assert whole.send("/v1/models", headers={**followed, "Authorization": f"Bearer {KEY}"}).status == 403
    assert whole.send("/run/tiny/report.html", headers={**followed, "Authorization": f"Bearer {KEY}"}).status == 403


def test_the_report_needs_a_key_and_may_do_nothing(whole: Any, model: LanguageModel) -> None:
    assert whole.send("/run/tiny/report.html").status == 401
    signed = {"Authorization": f"Bearer {KEY}"}
    answer = whole.send("/run/tiny/report.html", headers=signed)
    assert answer.status == 200 and "报告" in answer.body.decode()
    assert "sandbox" in answer.headers["content-security-policy"]
    assert whole.send("/v1/models", headers=signed).json["data"][0]["report"] == "run/tiny/report.html"
    whole.served.report.unlink()
    assert whole.send("/run/tiny/report.html", headers=signed).status == 404


def test_a_model_without_a_report_has_none(model: LanguageModel) -> None:
    with serving(model, pages=True) as live:
        assert live.send("/v1/models").json["data"][0]["report"] is None
        assert live.send("/run/tiny/report.html").status == 404 and live.send("/").status == 200
