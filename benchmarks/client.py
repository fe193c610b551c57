"""A load generator that costs little: one thread, one selector, the request made beforehand.

It shares the cores with the service under test, so it does nothing but send the same bytes,
count those of the answer and look at the status.
"""

from __future__ import annotations

import itertools
import json
import re
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.measured import MAX_REQUESTS, Round, process_cpu_seconds

_STALLED_SECONDS = 60.0
_BOUNDARY = b"mammogram-by-mammogram"
OCTETS = {"Content-Type": "application/octet-stream"}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class LoadError(Exception):
    """The service answered something else than 200, or nothing."""


def post(port: int, path: str, body: bytes, headers: Mapping[str, str] = OCTETS) -> bytes:
    """The bytes of a ``POST`` on a connection that is kept."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"{''.join(lines)}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def post_series(port: int, path: str, exams: Sequence[bytes]) -> bytes:
    """As ``post``, for one file an exam, the oldest first, with a ``series`` part."""
    described = [
        {"date": f"{2000 + number}-03-12", "files": [f"{number}"]} for number in range(len(exams))
    ]
    parts = [_part('name="series"', json.dumps({"exams": described}).encode("ascii"))]
    parts += [
        _part(f'name="files"; filename="{number}"', data) for number, data in enumerate(exams)
    ]
    body = b"".join(parts) + b"--" + _BOUNDARY + b"--\r\n"
    return post(
        port, path, body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
    )


def _part(disposition: str, content: bytes) -> bytes:
    head = f"Content-Disposition: form-data; {disposition}\r\n\r\n".encode("ascii")
    return b"--" + _BOUNDARY + b"\r\n" + head + content + b"\r\n"


def run(port: int, pid: int, request: bytes, *, concurrency: int, seconds: float) -> Round:
    """Send ``request`` again and again on ``concurrency`` connections for a while.

    ``pid`` is the service's process. Raises ``LoadError``.
    """
    loads = {"": [itertools.repeat(request)] * concurrency}
    return run_together(port, pid, loads, seconds=seconds)[""]


def run_together(
    port: int, pid: int, loads: Mapping[str, Sequence[Iterator[bytes]]], *, seconds: float
) -> dict[str, Round]:
    """Send the requests of several loads at the same time, for a while or until there are no more:
    a connection for each iterator. Connections may share one.

    The processor time in each round is that of all loads. Raises ``LoadError``.
    """
    with selectors.DefaultSelector() as selector:
        connections = {
            name: [_Connection(port, requests, selector) for requests in load]
            for name, load in loads.items()
        }
        every = list(itertools.chain(*connections.values()))
        try:
            cpu, service_cpu = time.process_time(), process_cpu_seconds(pid)
            start = time.perf_counter()
            _drive(every, selector, start + seconds)
            wall = time.perf_counter() - start
            service_cpu = process_cpu_seconds(pid) - service_cpu
            cpu = time.process_time() - cpu
        finally:
            for connection in every:
                connection.socket.close()
    return {
        name: Round(wall, [s for c in of_load for s in c.latencies], service_cpu, cpu)
        for name, of_load in connections.items()
    }


def _drive(
    connections: Sequence[_Connection], selector: selectors.BaseSelector, deadline: float
) -> None:
    busy = sent = sum(connection.start() for connection in connections)
    while busy:
        ready = selector.select(_STALLED_SECONDS)
        if not ready:
            raise LoadError(f"no answer within {_STALLED_SECONDS:.0f} s")
        for key, events in ready:
            connection = key.data
            if events & selectors.EVENT_WRITE:
                connection.send()
            if not events & selectors.EVENT_READ or not connection.receive():
                continue
            now = time.perf_counter()
            connection.latencies.append(now - connection.started)
            if now < deadline and sent < MAX_REQUESTS and connection.start():
                sent += 1
            else:
                selector.unregister(connection.socket)  # the server may close it while others wait
                busy -= 1


class _Connection:
    """One kept connection, with at most one request on it."""

    _buffer = bytearray(1 << 20)  # what is read is thrown away, so all can share it

    def __init__(
        self, port: int, requests: Iterator[bytes], selector: selectors.BaseSelector
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.started = 0.0
        self.latencies: list[float] = []
        self._requests = requests
        self._request = self._unsent = memoryview(b"")
        self._head = b""
        self._missing: int | None = None  # bytes of the answer, once its head was read
        self._selector = selector
        selector.register(self.socket, selectors.EVENT_READ, self)

    def start(self) -> bool:
        """Send the next request; False if there is none."""
        request = next(self._requests, None)
        if request is None:
            return False
        self.started = time.perf_counter()
        self._head, self._missing = b"", None
        self._request = self._unsent = memoryview(request)
        self.send()
        if self._unsent:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(self.socket, both, self)
        return True

    def send(self) -> None:
        """Send what the socket takes."""
        waited = len(self._unsent) < len(self._request)
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return
        if waited and not self._unsent:
            self._selector.modify(self.socket, selectors.EVENT_READ, self)

    def receive(self) -> bool:
        """Read what has come; whether the answer is complete. Raises ``LoadError``."""
        count = self.socket.recv_into(self._buffer)
        if not count:
            raise LoadError("the service closed the connection")
        if self._missing is None:
            self._head += self._buffer[:count]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self._head, 0, end + 2)
            if not self._head.startswith(b"HTTP/1.1 200 ") or length is None:
                raise LoadError(f"answer: {self._head[:2000].decode('latin-1')}")
            self._missing = int(length[1]) - (len(self._head) - end - 4)
        else:
            self._missing -= count
        return self._missing == 0
