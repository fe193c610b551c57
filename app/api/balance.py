"""Connections shared out evenly among the processes that accept on one socket.

Left to the system, the process that wakes first takes what comes, and clients keep their
connections: with two processes and eight connections, one often had them all. Here a process that
has more than another waits a moment before it accepts one more, so that the other can. None
depends on another: when the moment is over, it accepts.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from app.api.bodies import LargeBodyProtocol
from app.api.processes import shared_folder
from app.machine import is_running

_STEP_SECONDS = 0.001
_STEPS = 10  # to wait for each connection more than another process has
_MOST_STEPS = 50
_FULL_SECONDS = 1.0  # when no more files can be opened
_MOST_PROCESSES = 512


class Connections:
    """How many connections each process has: a table in memory that all of them share, with the
    process and its count in a row. A row is written by its owner only."""

    def __init__(self, file: Path) -> None:
        """Take a row that is free, or whose process is no more."""
        with file.open("a+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            opened.truncate(8 * _MOST_PROCESSES)
            shared = memoryview(mmap.mmap(opened.fileno(), 8 * _MOST_PROCESSES)).cast("i")
            self._processes, self._counts = shared[::2], shared[1::2]
            self._own = next(
                row
                for row, owner in enumerate(self._processes)
                if not owner or not is_running(owner)
            )
            self._counts[self._own] = 0
            self._processes[self._own] = os.getpid()
            fcntl.flock(opened, fcntl.LOCK_UN)  # the mapping keeps the file open

    def add(self, more: int) -> None:
        """This process has so many more."""
        self._counts[self._own] += more

    def release(self) -> None:
        """This process accepts no more: its row is free."""
        self._processes[self._own] = 0

    def surplus(self) -> int:
        """How many more this process has than the one with the fewest."""
        fewest = self._counts[self._own]
        for owner, count in zip(self._processes, self._counts, strict=True):
            if owner:
                fewest = min(fewest, count)
        return self._counts[self._own] - fewest


class CountedProtocol(LargeBodyProtocol):
    """``http=`` of a uvicorn server in one of several processes."""

    connections_of_all: Connections

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connections_of_all.add(-1)


class BalancedLoop(uvloop.Loop):
    """``loop=`` of a uvicorn server in one of several processes: takes its share of the
    connections of the socket that they were given."""

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], CountedProtocol],
        *,
        sock: socket.socket,
        backlog: int,
        ssl: None = None,
    ) -> Acceptor | asyncio.AbstractServer:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):  # this process' own
            return await super().create_server(protocol_factory, sock=sock, backlog=backlog)
        sock.listen(backlog)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections inherit it
        CountedProtocol.connections_of_all = Connections(shared_folder() / "connections")
        return Acceptor(self, sock, protocol_factory)


class Acceptor:
    """Accepts on ``listener`` until it is closed. Of an asyncio server, what uvicorn asks for."""

    def __init__(
        self,
        loop: BalancedLoop,
        listener: socket.socket,
        protocol_factory: Callable[[], CountedProtocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._connections = CountedProtocol.connections_of_all
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._pause: asyncio.TimerHandle | None = None
        self._steps = 0  # waited for the connection that is first in the queue
        self._opening: set[asyncio.Task[Any]] = set()
        loop.add_reader(listener, self._take_turn)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        if self._opening:
            await asyncio.wait(self._opening)
        self._connections.release()

    def _take_turn(self) -> None:
        """Accept the connection that waits, at once or, while others have fewer, later."""
        if self._steps < min(_STEPS * self._connections.surplus(), _MOST_STEPS):
            self._steps += 1
            self._wait(_STEP_SECONDS)
        else:
            self._steps = 0
            self._accept()

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._loop.add_reader(self._listener, self._take_turn)
        if not self._poll.poll(0):
            self._steps = 0  # another process has accepted it

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the client has gone
        except OSError:
            self._wait(_FULL_SECONDS)
            return
        self._connections.add(1)
        connection.setblocking(False)
        opening = self._loop.create_task(
            self._loop.connect_accepted_socket(self._protocol_factory, connection)
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            self._connections.add(-1)  # it never had a protocol that could say so
