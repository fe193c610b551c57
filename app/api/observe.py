"""Around every request: a request id, an answer even to a fault, status and duration."""

from __future__ import annotations

import re
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.api.admit import IMAGE_ROUTES
from app.api.errors import failure_response

_CLIENT_GONE = 499  # counted only: there is nobody to answer
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
            known = scope["path"] if scope["path"] in IMAGE_ROUTES else "other"
            route = getattr(scope.get("route"), "path", known)
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.REQUEST_SECONDS.labels(route).observe(time.perf_counter() - start)
