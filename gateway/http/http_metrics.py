"""Counts and times HTTP requests of this process by route template; `router` serves them, on the operator's port."""

from __future__ import annotations

import time

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.dependencies import Services
from gateway.metrics.families import JobMetrics

router = APIRouter(tags=["operation"])

UNMATCHED = "unmatched"
"""Label of requests to no route of ours, so that a scanner cannot add series."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Middleware: one count and one duration per request."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("route", "method", "status")
        self._requests = Counter(
            "tunegate_http_requests", "HTTP requests by route and class of status.", labels, registry=registry
        )
        self._seconds = Histogram(
            "tunegate_http_request_duration_seconds", "Time to answer HTTP requests.", labels[:2], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.perf_counter()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note_status)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            self._requests.labels(route, method, f"{status // 100}xx").inc()
            self._seconds.labels(route, method).observe(time.perf_counter() - started)


def install_metrics(app: FastAPI, services: Services) -> None:
    """Measure requests of `app`."""
    registry = CollectorRegistry()
    registry.register(JobMetrics(services))
    app.state.metrics = registry
    app.add_middleware(HttpMetrics, registry=registry)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(request.app.state.metrics), media_type=content_type)
