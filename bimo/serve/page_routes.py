"""The playground as routes of the server, with the report of the run that is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bimo.serve.errors import ApiError
from bimo.serve.pages import REPORT_POLICY, Page, pages

REPORT = "/run/report.html"
# What is shown without a key: the page, which asks for one; the report may quote the training text, and is not.
OPEN = frozenset(pages())


def page_routes(report: Path | None) -> list[BaseRoute]:
    """A route for each file of the playground, and one for ``report``, which is read when it is asked for."""
    routes: list[BaseRoute] = [Route(address, _shown(page), methods=["GET"]) for address, page in pages().items()]
    return routes if report is None else [*routes, Route(REPORT, _reported(report), methods=["GET"])]


def _shown(page: Page) -> Any:
    async def answer(request: Request) -> Response:
        if page.known(request.headers.get("if-none-match")):
            return Response(status_code=304, headers=page.headers)
        return Response(page.body, headers=page.headers, media_type=page.content_type)

    return answer


def _reported(report: Path) -> Any:
    async def answer(request: Request) -> Response:
        try:
            body = await run_in_threadpool(report.read_bytes)
        except OSError:
            raise ApiError(404, "This run has no report.", code="not_found") from None
        headers = {
            "Content-Security-Policy": REPORT_POLICY,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }
        return Response(body, headers=headers, media_type="text/html")

    return answer
