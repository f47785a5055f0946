"""GET /v1/models, /health, /version and /metrics: what the server says of itself."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo import __version__
from bimo.serve.metrics import CONTENT_TYPE, Family, Sample, of_engines, text
from bimo.serve.page_routes import report_address
from bimo.serve.served import Models, Served


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
        "purpose": facts.purpose,
        "labels": list(facts.labels),
        "engine": facts.engine,
        "lacks": facts.missing,
        "precision": facts.precision,
        "report": report_address(served),
    }


def listed(models: Models) -> Any:
    """The endpoint of all models."""

    async def answer(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [described(served) for served in models]})

    return answer


def one(models: Models) -> Any:
    """The endpoint of one model."""

    async def answer(request: Request) -> Response:
        return JSONResponse(described(models.any(request.path_params["model"])))

    return answer


def health(models: Models) -> Any:
    """The endpoint for load balancers: 503 once the server is ending or an engine has failed."""

    async def answer(request: Request) -> Response:
        working = all(served.engine.alive() for served in models)
        status = "draining" if models.shared.admission.draining else "ok" if working else "failed"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    return answer


async def version(request: Request) -> Response:
    """The endpoint of bimo's version."""
    return JSONResponse({"version": __version__})


def metrics(models: Models) -> Any:
    """The endpoint for Prometheus."""

    async def answer(request: Request) -> Response:
        shared = models.shared
        active, waiting = shared.admission.active, shared.admission.waiting
        running = sum(served.engine.running() for served in models)
        families = [
            *shared.metrics.families(),
            Family("bimo_requests_active", "gauge", "Requests that are computed.", [Sample(active)]),
            Family("bimo_requests_waiting", "gauge", "Requests that wait for a place.", [Sample(waiting)]),
            Family("bimo_choices_running", "gauge", "Continuations that the engines compute.", [Sample(running)]),
            *of_engines({served.name: stats for served in models if (stats := served.engine.stats()) is not None}),
        ]
        if shared.guard is not None:
            meaning = "Questions and answers that the guard stopped or redacted."
            acted = sum(shared.guard.counts.values())
            families.append(Family("bimo_guard_actions", "gauge", meaning, [Sample(acted)]))
        return Response(text(families), headers={"content-type": CONTENT_TYPE})

    return answer
