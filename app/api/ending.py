"""How the service ends: first it says so, then it stops to accept, then it finishes what it has.

A load balancer learns of an end only at its next probe. Until then it sends requests, and one that
meets a closed port, or a kept connection that closes at that moment, may fail. So at SIGTERM the
probe fails at once, while requests are answered as before for ``MAMMOSEQ_DRAIN_SECONDS``, each on
a connection that is closed after it; only then does uvicorn end as it always does.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@contextmanager
def told_to_end(application: FastAPI, drain_seconds: float) -> Iterator[None]:
    """While in here, SIGTERM sets ``application.state.ending``, and reaches whoever handled it
    before only so much later; a second one, or SIGINT, reaches it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # nor does uvicorn look at signals there
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def told(number: int, frame: FrameType | None) -> None:
        end = before[signal.Signals(number)]
        assert callable(end)  # uvicorn's
        if number == signal.SIGTERM and drain_seconds and not application.state.ending:
            loop.call_soon_threadsafe(loop.call_later, drain_seconds, end, number, None)
        else:
            end(number, frame)
        application.state.ending = True

    for number in before:
        signal.signal(number, told)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class CloseAtEnd:
    """ASGI middleware: while the service ends, a connection serves no further request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["app"].state.ending:
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_last)
