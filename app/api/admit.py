"""The way of images past FastAPI: let in, answered in time, or dropped.

What can be refused at once is refused before the body is read. FastAPI's routing, dependencies and
exit stacks would cost 0.4 ms of a request of 20 (``docs/performance.md``), so the routes that it
describes in ``/openapi.json`` are called here, with the query as the same model reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.choice import choose
from app.api.errors import problem_response
from app.api.infer import INFER, INFER_VERSION, infer
from app.api.options import NoOptions, Options, PixelOptions, query_of
from app.api.pixels import pixels
from app.api.predict import predict, predict_series
from app.api.shadow import Answered, Shadow
from app.inference.admission import Admission, Admitted
from app.memory import give_back
from app.problems import Refusal

# What is sent images, by the pattern of its address, and the model of its query
IMAGE_ROUTES: dict[str, tuple[Callable[[Request, Any], Awaitable[Response]], type[BaseModel]]] = {
    "/predict": (predict, Options),
    "/predict/series": (predict_series, Options),
    "/pixels": (pixels, PixelOptions),
    INFER: (infer, NoOptions),
    INFER_VERSION: (infer, NoOptions),
}
_PATTERNS = [(pattern, compile_path(pattern)[0]) for pattern in IMAGE_ROUTES]
DEADLINE = "X-Deadline-Ms"
_LONGEST_MS = 3_600_000
_MOST_DIGITS = 19  # Python refuses to read thousands of them
_IDLE_SECONDS = 2.0


class Admit:
    """ASGI middleware that answers what is sent images. The work is abandoned when the deadline
    passes or the client goes; what it holds in memory counts until the answer was sent."""

    def __init__(self, app: ASGIApp, admission: Admission, shadow: Shadow) -> None:
        self._app = app
        self._admission = admission
        self._shadow = shadow
        self._idle: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        found = image_route(scope["path"]) if posted else None
        if found is None:
            await self._app(scope, receive, send)
            return
        route, scope["path_params"] = found
        request = Request(scope)
        try:
            patience = _patience(request)
            admitted = self._admission.admit(_length(request), patience, route)
        except Refusal as refusal:
            await problem_response(request, refusal)(scope, receive, send)
            return
        scope["state"]["admitted"] = admitted
        try:
            response = await self._answer(route, scope, receive, admitted, patience)
            await response(scope, receive, send)
        finally:
            self._admission.release(admitted)
        answered: Answered | None = scope["state"].pop("answered", None)
        if answered is not None and response.status_code == 200:
            self._shadow.follow(answered)

    async def _answer(
        self,
        route: str,
        scope: Scope,
        receive: Receive,
        admitted: Admitted,
        patience: float | None,
    ) -> Response:
        client = _Client(receive, partial(self._admission.hold, admitted))
        try:
            async with asyncio.timeout(patience):
                return await _answered(route, Request(scope, client.receive))
        except TimeoutError:
            admitted.turn.abandoned = True
            late = Refusal("deadline_exceeded", "The request was not answered within its deadline.")
            return problem_response(Request(scope), late)
        except asyncio.CancelledError:
            admitted.turn.abandoned = True
            if not client.has_gone:
                raise
            raise ClientDisconnect from None
        finally:
            client.forget()
            self._done(admitted)

    def _done(self, admitted: Admitted) -> None:
        """Give memory back once there was nothing to do for a while."""
        self._admission.answer(admitted)
        admitted.turn.abandoned = True  # after a fault, images of a series may still wait
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._admission.idle:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(_IDLE_SECONDS, loop.run_in_executor, None, give_back)


def image_route(path: str) -> tuple[str, dict[str, str]] | None:
    """The pattern of ``IMAGE_ROUTES`` that a path fits, and its parameters in there."""
    for pattern, expression in _PATTERNS:
        # As the router does, which takes a path with a line feed at its end for the one without:
        # whatever it would send to a route of images must be found here
        if fit := expression.match(path):
            return pattern, fit.groupdict()
    return None


async def _answered(route: str, request: Request) -> Response:
    answer, options = IMAGE_ROUTES[route]
    try:
        query = query_of(request, options)
        in_path = "/".join(request.path_params.values())  # name, or name/version
        choose(request, in_path or getattr(query, "model", None))
        return await answer(request, query)
    except Refusal as refusal:
        return problem_response(request, refusal)


class _Client:
    """The client of a request: the task that answers it is cancelled when the client goes."""

    def __init__(self, receive: Receive, received: Callable[[int], None]) -> None:
        self._receive = receive
        self._received = received  # told how many bytes of the body came so far
        self._bytes = 0
        self._answering = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self.has_gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        self._received(self._bytes)
        if message["type"] == "http.request" and not message.get("more_body"):
            self._watch = asyncio.create_task(self._watch_out())
        return message

    def forget(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _watch_out(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_gone = True
        if self._answering is not None:
            self._answering.cancel()


def _patience(request: Request) -> float | None:
    """Seconds until the deadline; None if there is none. Raises ``Refusal``."""
    stated = request.headers.get(DEADLINE)
    if stated is None:
        return None
    plain = stated.isascii() and stated.isdigit() and len(stated) <= _MOST_DIGITS
    if not (plain and 0 < int(stated) <= _LONGEST_MS):
        raise Refusal("invalid_request", f"{DEADLINE}: milliseconds, at most {_LONGEST_MS}.")
    return int(stated) / 1000


def _length(request: Request) -> int:
    """Bytes of the body, as far as they are known."""
    declared = request.headers.get("content-length", "")
    with suppress(ValueError):
        return max(0, int(declared))
    return 0
