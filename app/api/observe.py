"""Around every request: a request id, an answer even to a fault, status, duration and log line."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs, metrics
from app.api.admit import image_route
from app.api.errors import failure_response
from app.inference.admission import Admitted

_CLIENT_GONE = 499  # counted only: there is nobody to answer
_WATCHED = ("/healthz/", "/metrics")  # every few seconds: only what goes wrong is logged
_TRACE_PARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SAFE_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Observe:
    """ASGI middleware. A caller's ``X-Request-ID`` is kept if it is plain, else one is made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        wanted = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = wanted if _SAFE_ID.fullmatch(wanted) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, started = 500, False
        start = time.perf_counter()

        async def send_observed(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
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
            if status >= 400 or not route.startswith(_WATCHED):
                logs.event("request", _line(scope, headers, route, status, seconds))


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
        "trace_id": trace_id_of(headers),
        "route": route,
        "status": status,
        "code": state.get("problem"),
        "ms": round(1000 * seconds, 2),
        "bytes_in": int(length) if length.isdigit() else received,
        "images": admitted.images if admitted else None,
        "model": state.get("model"),
    }


def trace_id_of(headers: Mapping[bytes, bytes]) -> str | None:
    """That of the caller's trace (W3C Trace Context, 3.2)."""
    parent = _TRACE_PARENT.fullmatch(headers.get(b"traceparent", b"").decode("latin-1"))
    return parent[1] if parent and parent[1].strip("0") else None
