"""Around every request: a request id, an answer even to a fault, status, duration, log line, and a
span if somebody traces."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs, metrics
from app.api.admit import image_route
from app.api.errors import failure_response
from app.api.traces import begun, end
from app.inference.admission import Admitted
from app.tracing.spans import Span, caller_of, within

if TYPE_CHECKING:
    from app.tracing.collector import Collector

_CLIENT_GONE = 499  # counted only: there is nobody to answer
# Every few seconds: only what goes wrong is logged
_WATCHED = ("/healthz/", "/metrics", "/v2/health/")
_SAFE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Observe:
    """ASGI middleware. A caller's ``X-Request-ID`` is kept if it is plain, else one is made."""

    def __init__(self, app: ASGIApp, collector: Collector | None = None) -> None:
        self._app = app
        self._collector = collector

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        wanted = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = wanted if _SAFE_ID.fullmatch(wanted) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        span, scope["state"]["trace_id"] = self._traced(scope, headers)
        status, started = 500, False
        start = time.perf_counter()

        async def send_observed(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            with within(span):
                await self._app(scope, receive, send_observed)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception as error:  # nothing may reach the server's own log with its message
            if started:
                raise
            await failure_response(Request(scope), error)(scope, receive, send_observed)
        finally:
            # The route's pattern, never the path: a path may hold anything
            known, _ = image_route(scope["path"]) or ("other", {})
            route = str(getattr(scope.get("route"), "path", known))
            seconds = time.perf_counter() - start
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.REQUEST_SECONDS.labels(route).observe(seconds)
            if span is not None:
                end(span, scope, route, status)
            if status >= 400 or not route.startswith(_WATCHED):
                logs.event("request", _line(scope, headers, route, status, seconds))

    def _traced(
        self, scope: Scope, headers: Mapping[bytes, bytes]
    ) -> tuple[Span | None, str | None]:
        """The span of a request, if it is traced, and the id of its trace: that of the caller,
        who may trace although nobody does here."""
        caller = caller_of(headers.get(b"traceparent", b"").decode("latin-1"))
        watched = scope["path"].startswith(_WATCHED)
        span = None if self._collector is None or watched else begun(self._collector, scope, caller)
        if span is not None:
            return span, span.trace_id
        return None, caller.trace_id if caller is not None else None


def _line(
    scope: Scope, headers: Mapping[bytes, bytes], route: str, status: int, seconds: float
) -> dict[str, object]:
    """What is logged of a request, of which nothing is the caller's but the plain id."""
    state = scope["state"]
    admitted: Admitted | None = state.get("admitted")
    length = headers.get(b"content-length", b"")
    received = admitted.bytes if admitted else None
    return {
        "request_id": state["request_id"],
        "trace_id": state["trace_id"],
        "route": route,
        "status": status,
        "code": state.get("problem"),
        "ms": round(1000 * seconds, 2),
        "bytes_in": int(length) if length.isdigit() else received,
        "images": admitted.images if admitted else None,
        "model": state.get("model"),
    }
