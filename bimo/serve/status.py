"""GET /v1/models, /health, /version and /metrics: what the server says of itself."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo import __version__
from bimo.serve.metrics import CONTENT_TYPE
from bimo.serve.page_routes import REPORT
from bimo.serve.served import Served


def described(served: Served) -> dict[str, Any]:
    """The model as OpenAI lists it, with what a playground wants to know besides."""
    facts = served.engine.facts
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "bimo",
        "max_model_len": facts.context,
        "chat": served.conventions.no_chat is None,
        "engine": facts.engine,
        "lacks": facts.missing,
        "precision": facts.precision,
        "report": REPORT.removeprefix("/") if served.report else None,
    }


def models(served: Served) -> Any:
    """The endpoint of all models: there is one."""

    async def listed(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [described(served)]})

    return listed


def model(served: Served) -> Any:
    """The endpoint of one model."""

    async def one(request: Request) -> Response:
        served.require(request.path_params["model"])
        return JSONResponse(described(served))

    return one


def health(served: Served) -> Any:
    """The endpoint for load balancers: 503 once the server is ending or its engine has failed."""

    async def answer(request: Request) -> Response:
        status = "draining" if served.admission.draining else "ok" if served.engine.alive() else "failed"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    return answer


def version(served: Served) -> Any:
    """The endpoint."""

    async def answer(request: Request) -> Response:
        return JSONResponse({"version": __version__})

    return answer


def metrics(served: Served) -> Any:
    """The endpoint for Prometheus."""

    async def answer(request: Request) -> Response:
        gauges = {
            "bimo_requests_active": ("Requests that are computed.", float(served.admission.active)),
            "bimo_requests_waiting": ("Requests that wait for a place.", float(served.admission.waiting)),
            "bimo_choices_running": ("Continuations that the engine computes.", float(served.engine.running())),
        }
        if served.guard is not None:
            acted = float(sum(served.guard.counts.values()))
            gauges["bimo_guard_actions"] = ("Questions and answers that the guard stopped or redacted.", acted)
        return Response(served.metrics.text(gauges), headers={"content-type": CONTENT_TYPE})

    return answer
