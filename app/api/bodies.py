"""The bodies of large requests go from the socket to where they stay, and clients that have
stopped, or send a byte now and then, keep nothing.

uvicorn hands a body over in pieces of 64 kB, which copies every byte four times on the event loop:
a millisecond a megabyte. Here the connection reads straight into one buffer of the announced
length (``docs/performance.md`` has the gain). Everything else is uvicorn's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.errors import raw_problem

WHOLE_BODY = "body"  # in the state of a scope: a bytearray
_LARGE = 1 << 17  # bytes from which it pays
_IGNORED = 1 << 18  # bytes read at a time of a body that nobody waits for any more


class LargeBodyProtocol(HttpToolsProtocol):
    """``http=`` of a uvicorn server, for bodies of at most ``most_bytes`` that are posted to a
    path of which ``takes_images`` is true."""

    stalled_seconds = 60.0  # with an answer that is not taken, until the connection ends
    slow_seconds = 30.0  # for a header; and over which the speed of a body is taken
    slowest = 1000  # bytes a second of a body
    longest_header = 1 << 16  # bytes, with the request line
    most_bytes = 0
    takes_images: Callable[[str], bool] = staticmethod(lambda path: False)
    _begun: bytearray | None = None  # what came with the header of a large body
    _length = 0
    _between = True  # two requests: what comes is the header of the next
    _header_since: float | None = None
    _header_bytes = 0
    _too_long = False
    _body_since = 0.0
    _body_bytes = 0  # since then
    _full_since: float | None = None  # what is to be sent, until the client has taken enough of it
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_since = self.loop.time()
        self._watch_out()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        if self._header_since is None:
            self._header_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        self._too_long = self._too_long or length > self.longest_header
        if self._too_long:
            return
        self._between, self._header_since, self._header_bytes = False, None, 0
        self._body_since, self._body_bytes = self.loop.time(), 0
        waiting = self.cycle is not None and not self.cycle.response_complete
        super().on_headers_complete()
        awaited = not waiting and not self.parser.should_upgrade() and self._has_reader()
        self._length = self._announced() if awaited else 0
        self._begun = bytearray() if _LARGE <= self._length <= self.most_bytes else None

    def on_body(self, body: bytes) -> None:
        if self._too_long:
            return
        if self._begun is None:
            super().on_body(body)
        else:
            self._begun += body

    def on_message_complete(self) -> None:
        if self._too_long:
            return
        self._between = True
        if self._begun is not None:  # it came with its header
            self.cycle.body, self._begun = self._begun, None
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self.goes_on(len(data))
        if self._between:
            self._header_bytes += len(data)
            if self._header_since is None:
                self._header_since = self.loop.time()
        super().data_received(data)
        if self._too_long or (self._between and self._header_bytes > self.longest_header):
            self._too_long = True
            self._refuse("header_too_large", f"At most {self.longest_header} bytes are accepted.")
            return
        if self._begun is not None and not self.transport.is_closing():
            self.transport.set_protocol(_Filling(self, self._begun, self._length))
            self.flow.pause_reading()  # until the application asks for it, or has refused it
        self._begun = None

    def body_received(self, body: bytearray | None) -> None:
        """The whole body came, None if nobody waited for it; what follows on the connection is
        another request."""
        self.transport.set_protocol(self)
        self._between = True
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        if body is None:
            return
        # not as the cycle's body, which would be copied
        self.scope["state"][WHOLE_BODY] = body
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def keep_alive(self) -> None:
        """A connection with nothing to answer is closed after a while: begin to count again."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def goes_on(self, more: int) -> None:
        """So many bytes came."""
        self._body_bytes += more

    def pause_writing(self) -> None:
        self._full_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._full_since = None
        super().resume_writing()

    def _watch_out(self) -> None:
        """End the connection of a client that has stopped, or as good as: its request keeps a
        place, and its answer memory."""
        now = self.loop.time()
        if self._full_since is not None and now - self._full_since >= self.stalled_seconds:
            self.transport.abort()
        if self.transport.is_closing():
            return
        if self._answering():
            if self._header_since is not None:
                self._header_since = now  # it need not hurry while it waits
            self._watch_body(now)
        elif self._header_since is not None and now - self._header_since >= self.slow_seconds:
            if self._header_bytes:
                seconds = round(self.slow_seconds)
                self._refuse("slow_body", f"The header did not come within {seconds} s.")
            self.transport.close()
        if not self.transport.is_closing():
            pause = min(self.slow_seconds / 3, self.stalled_seconds)
            self._watch = self.loop.call_later(pause, self._watch_out)

    def _watch_body(self, now: float) -> None:
        if not self.cycle.more_body or self.flow.read_paused:
            self._body_since, self._body_bytes = now, 0
        elif now - self._body_since >= self.slow_seconds:
            if self._body_bytes < self.slowest * self.slow_seconds:
                self._refuse("slow_body", f"It came at less than {self.slowest} bytes a second.")
            self._body_since, self._body_bytes = now, 0

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, code: str, detail: str) -> None:
        """Answer the request under way, of which the application only sees that its client has
        gone, and end the connection."""
        request_id = ""
        if self._answering():
            request_id = self.cycle.scope["state"].get("request_id", "")
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not (self._answering() and self.cycle.response_started):
            self.transport.write(raw_problem(code, detail, request_id))
        self.transport.close()

    def _has_reader(self) -> bool:
        return self.scope["method"] == "POST" and self.takes_images(self.scope["path"])

    def _announced(self) -> int:
        """The length of the body, if the header states one that can be relied on."""
        named = dict(self.headers)
        if b"transfer-encoding" in named:
            return 0
        return int(named.get(b"content-length", 0))  # the parser has refused what is no number


class _Filling(asyncio.BufferedProtocol):
    """The protocol of a connection while a body of ``length`` bytes is read, which has ``begun``.

    There is room for it only once the application has asked for it and more of it comes: neither a
    header alone may cost what it announces, nor a body while it is asked who sends it.
    """

    def __init__(self, owner: LargeBodyProtocol, begun: bytearray, length: int) -> None:
        self._owner = owner
        self._begun = begun
        self._length = length
        self._filled = len(begun)
        self._body: bytearray | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._owner.cycle.response_complete:  # refused, or too late
            self._body = None
            return memoryview(bytearray(min(_IGNORED, self._length - self._filled)))
        if self._body is None:
            self._body = bytearray(self._length)
            self._body[: self._filled] = self._begun
        return memoryview(self._body)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._owner.goes_on(nbytes)
        if self._body is None:
            self._owner.keep_alive()
        if self._filled == self._length:
            body, self._body = self._body, None  # uvloop keeps this protocol after its use
            self._owner.body_received(body)

    def eof_received(self) -> Any:
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
