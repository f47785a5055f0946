"""The playground as routes of the server, with the reports of the runs that are served."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bimo.serve.errors import ApiError
from bimo.serve.pages import REPORT_POLICY, Page, pages
from bimo.serve.served import Models, Served

# What is shown without a key: the page, which asks for one; the report may quote the training text, and is not.
OPEN = frozenset(pages())


def page_routes(models: Models) -> list[BaseRoute]:
    """A route for each file of the playground, and one for the models' reports, which are read when asked for."""
    routes = [Route(address, _shown(page), methods=["GET"]) for address, page in pages().items()]
    return [*routes, Route("/run/{model:path}/report.html", _reported(models), methods=["GET"])]


def report_address(served: Served) -> str | None:
    """Where a model's report is, seen from the playground's page; None if it has none."""
    return f"run/{quote(served.name)}/report.html" if served.report else None


def _shown(page: Page) -> Any:
    async def answer(request: Request) -> Response:
        if page.known(request.headers.get("if-none-match")):
            return Response(status_code=304, headers=page.headers)
        return Response(page.body, headers=page.headers, media_type=page.content_type)

    return answer


def _reported(models: Models) -> Any:
    async def answer(request: Request) -> Response:
        report = models.any(request.path_params["model"]).report
        try:
            body = await run_in_threadpool(report.read_bytes) if report else None
        except OSError:
            body = None
        if body is None:
            raise ApiError(404, "This run has no report.", code="not_found")
        headers = {
            "Content-Security-Policy": REPORT_POLICY,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }
        return Response(body, headers=headers, media_type="text/html")

    return answer
