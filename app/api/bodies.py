"""The bodies of large requests go from the socket to where they stay.

uvicorn hands a body over in pieces of 64 kB, which copies every byte four times on the event loop:
a millisecond a megabyte. Here the connection reads straight into one buffer of the announced
length (``docs/performance.md`` has the gain). Everything else is uvicorn's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

WHOLE_BODY = "body"  # in the state of a scope: a bytearray
_LARGE = 1 << 17  # bytes from which it pays
_IGNORED = 1 << 18  # bytes read at a time of a body that nobody waits for any more


class LargeBodyProtocol(HttpToolsProtocol):
    """``http=`` of a uvicorn server. ``most_bytes`` is the largest body that it makes room for."""

    most_bytes = 0
    _body: bytearray | None = None  # of the request under way, if that is large
    _filled = 0

    def on_headers_complete(self) -> None:
        waiting = self.cycle is not None and not self.cycle.response_complete
        super().on_headers_complete()
        length = 0 if waiting or self.parser.should_upgrade() else self._announced()
        self._body = bytearray(length) if _LARGE <= length <= self.most_bytes else None
        self._filled = 0

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
            return
        self._body[self._filled : self._filled + len(body)] = body
        self._filled += len(body)

    def on_message_complete(self) -> None:
        if self._body is not None:  # it came with its header
            self.cycle.body, self._body = self._body, None
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._body is not None and not self.transport.is_closing():
            self.transport.set_protocol(_Filling(self, self._body, self._filled))

    def body_received(self, body: bytearray) -> None:
        """The whole body is there; what follows on the connection is another request."""
        self._body = None
        self.transport.set_protocol(self)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._unset_keepalive_if_required()
        # not as the cycle's body, which would be copied
        self.scope["state"][WHOLE_BODY] = body
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _announced(self) -> int:
        """The length of the body, if the header states one that can be relied on."""
        named = dict(self.headers)
        if b"transfer-encoding" in named:
            return 0
        return int(named.get(b"content-length", 0))  # the parser has refused what is no number


class _Filling(asyncio.BufferedProtocol):
    """The protocol of a connection while a body is read."""

    def __init__(self, owner: LargeBodyProtocol, body: bytearray, filled: int) -> None:
        self._owner = owner
        self._body = body
        self._room = memoryview(body)
        self._filled = filled

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._owner.cycle.response_complete:  # refused at its header
            return memoryview(bytearray(min(_IGNORED, len(self._room) - self._filled)))
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._room):
            self._room = memoryview(b"")
            self._owner.body_received(self._body)

    def eof_received(self) -> Any:
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
