"""An open-loop load generator: requests leave when they are due, whatever became of others.

One thread, one selector. Arrivals have exponential gaps. A request takes an idle connection or
opens one, so that no request waits for another; its time runs from when it was due, so that a late
generator cannot flatter the service. Every image carries a mark of its own in a JPEG comment, so
that nothing can be answered from a cache of known images.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.client import LoadError
from benchmarks.measured import process_cpu_seconds

NO_ANSWER = 0  # in the place of a status
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSING = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_BOUNDARY = "exam-after-exam"
_MARK_BYTES = 12
_SEND_BUFFER = 1 << 20  # a single image leaves in one call
_MOST_CONNECTIONS = 4000
_GRACE_SECONDS = 10.0  # for what is under way when arrivals end


@dataclass(frozen=True)
class Request:
    """What is sent: ``head``, then ``pieces`` with the request's mark between them.

    ``images`` is how many it holds. With ``expect`` the body is held back until the service asks
    for it (RFC 9110 10.1.1).
    """

    head: bytes
    pieces: tuple[bytes, ...]
    images: int
    expect: bool = False

    def body(self, mark: bytes) -> list[memoryview]:
        parts = [memoryview(self.pieces[0])]
        for piece in self.pieces[1:]:
            parts += [memoryview(mark), memoryview(piece)]
        return parts


@dataclass(frozen=True)
class Load:
    request: Request
    per_second: float


@dataclass
class Outcome:
    """Seconds on the clock of ``time.perf_counter``; ``done`` is 0 while there is no answer."""

    kind: str
    due: float
    sent: float
    done: float = 0.0
    status: int = NO_ANSWER


@dataclass(frozen=True)
class Offered:
    """What became of all requests; ``start`` and ``end`` bound the time of their arrivals."""

    start: float
    end: float
    outcomes: list[Outcome]
    service_cpu_seconds: float
    client_cpu_seconds: float


def single(path: str, jpeg: bytes, headers: Mapping[str, str], *, expect: bool = False) -> Request:
    """``jpeg`` as the body of a request."""
    before, after = _split(jpeg, 0)
    length = len(before) + _MARK_BYTES + len(after)
    head = _head(path, "application/octet-stream", length, headers, expect)
    return Request(head, (before, after), 1, expect)


def series(
    path: str, jpeg: bytes, exams: int, headers: Mapping[str, str], *, expect: bool = False
) -> Request:
    """A form with a ``series`` part and an image for each exam."""
    described = [{"date": f"{2000 + i}-03-12", "files": [f"{i}"]} for i in range(exams)]
    pieces = [_part('name="series"') + json.dumps({"exams": described}).encode("ascii")]
    for i in range(exams):
        before, after = _split(jpeg, i)
        pieces[-1] += b"\r\n" + _part(f'name="files"; filename="{i}"') + before
        pieces.append(after)
    pieces[-1] += f"\r\n--{_BOUNDARY}--\r\n".encode("ascii")
    length = sum(map(len, pieces)) + exams * _MARK_BYTES
    head = _head(path, f"multipart/form-data; boundary={_BOUNDARY}", length, headers, expect)
    return Request(head, tuple(pieces), exams, expect)


def saturate(port: int, request: Request, *, concurrency: int, seconds: float) -> float:
    """Requests a second in a closed loop: a new one for each answer. Raises ``LoadError``."""
    start = time.perf_counter()
    deadline = start + seconds
    outcomes = repeat(
        port, request, concurrency=concurrency, until=lambda: time.perf_counter() >= deadline
    )
    wall = time.perf_counter() - start
    others = {outcome.status for outcome in outcomes} - {200}
    if others:
        raise LoadError(f"status {', '.join(map(str, others))} in a closed loop")
    return len(outcomes) / wall


def repeat(
    port: int, request: Request, *, concurrency: int, until: Callable[[], bool]
) -> list[Outcome]:
    """A closed loop until it is time to stop, and what became of every request.

    Raises ``LoadError`` when answers fail to come.
    """
    outcomes: list[Outcome] = []
    with _Client(port) as client:

        def send() -> None:
            now = time.perf_counter()
            outcomes.append(Outcome("", now, now))
            client.send(request, outcomes[-1])

        for _ in range(concurrency):
            send()
        last = time.perf_counter()
        while client.busy:
            answered = len(client.answered(_GRACE_SECONDS))
            last = time.perf_counter() if answered else last
            if time.perf_counter() > last + _GRACE_SECONDS:
                raise LoadError(f"no answer within {_GRACE_SECONDS:.0f} s in a closed loop")
            for _ in range(concurrency - client.busy):
                if not until():
                    send()
    return outcomes


def offer(port: int, pid: int, loads: Mapping[str, Load], *, seconds: float) -> Offered:
    """Offer ``loads`` together for so long, then wait for what is under way.

    ``pid`` is the service's process.
    """
    outcomes: list[Outcome] = []
    with _Client(port) as client:
        cpu, service_cpu = time.process_time(), process_cpu_seconds(pid)
        start = time.perf_counter()
        end = start + seconds
        for due, kind in _arrivals(loads, start, end):
            while (now := time.perf_counter()) < due:
                client.answered(due - now)
            outcome = Outcome(kind, due, now)
            outcomes.append(outcome)
            client.send(loads[kind].request, outcome)
        cpu, service_cpu = time.process_time() - cpu, process_cpu_seconds(pid) - service_cpu
        while client.busy and (left := end + _GRACE_SECONDS - time.perf_counter()) > 0:
            client.answered(left)
    return Offered(start, end, outcomes, service_cpu, cpu)


def _arrivals(loads: Mapping[str, Load], start: float, end: float) -> Iterator[tuple[float, str]]:
    """When requests are due and of which load, in order."""
    dice = random.Random(1)
    kinds = list(loads)
    rates = [loads[kind].per_second for kind in kinds]
    due = start
    while (due := due + dice.expovariate(sum(rates))) < end:
        yield due, dice.choices(kinds, rates)[0]


class _Client:
    """The connections of a run: those in use, and idle ones that wait for the next request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._marks = itertools.count(int(time.time() * 1000) % 10**9 * 1000)

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()

    @property
    def busy(self) -> int:
        return len(self._connections) - len(self._idle)

    def send(self, request: Request, outcome: Outcome) -> None:
        """Send now; ``outcome`` is filled in later, or says that it could not be sent."""
        mark = str(next(self._marks)).zfill(_MARK_BYTES)[-_MARK_BYTES:].encode("ascii")
        try:
            connection = self._idle.pop() if self._idle else self._open()
        except OSError:
            outcome.done = time.perf_counter()
            return
        try:
            connection.begin(request, mark, outcome)
        except OSError:
            self._lose(connection)

    def answered(self, timeout: float) -> list[Outcome]:
        """Move bytes until something has happened or ``timeout`` seconds have passed; what was
        answered meanwhile."""
        found: list[Outcome] = []
        for key, events in self._selector.select(timeout):
            connection: _Connection = key.data
            outcome = connection.outcome
            try:
                if events & selectors.EVENT_WRITE:
                    connection.flush()
                if not events & selectors.EVENT_READ or not connection.receive():
                    continue
            except OSError:
                self._lose(connection)
            else:
                assert outcome is not None
                outcome.status, outcome.done = connection.status, time.perf_counter()
                if connection.reusable:
                    self._idle.append(connection)
                else:
                    self._drop(connection)
            if outcome is not None:
                found.append(outcome)
        return found

    def _open(self) -> _Connection:
        if len(self._connections) >= _MOST_CONNECTIONS:
            raise OSError("too many connections")
        connection = _Connection(self._port, self._selector)
        self._connections.add(connection)
        return connection

    def _lose(self, connection: _Connection) -> None:
        """The service has closed the connection: an idle one, or one that waits for an answer."""
        if connection.outcome is None:
            self._idle.remove(connection)
        else:
            connection.outcome.done = time.perf_counter()
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


class _Connection:
    """One connection, with at most one request on it: ``outcome`` is that request's."""

    _buffer = bytearray(1 << 20)  # what is read is thrown away, so all can share it

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.socket.setblocking(False)
        self.outcome: Outcome | None = None
        self.status = NO_ANSWER
        self.reusable = True
        self._unsent: list[memoryview] = []
        self._held: list[memoryview] = []
        self._head = b""
        self._missing: int | None = None  # bytes of the answer, once its head was read
        self._writing = False
        self._selector = selector
        selector.register(self.socket, selectors.EVENT_READ, self)

    def begin(self, request: Request, mark: bytes, outcome: Outcome) -> None:
        """Start to send. Raises ``OSError`` if the connection is gone."""
        self.outcome = outcome
        self._head, self._missing = b"", None
        self._unsent, self._held = [memoryview(request.head)], request.body(mark)
        if not request.expect:
            self._ask_for_body()
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes. Raises ``OSError`` if the connection is gone."""
        try:
            while self._unsent:
                sent = self.socket.sendmsg(self._unsent)
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.pop(0))
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            pass
        if self._writing != bool(self._unsent):
            self._writing = bool(self._unsent)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writing else 0)
            self._selector.modify(self.socket, events, self)

    def receive(self) -> bool:
        """Read what has come; whether the answer is complete. Raises ``OSError`` if the connection
        is gone."""
        count = self.socket.recv_into(self._buffer)
        if not count:
            raise ConnectionResetError
        if self._missing is None:
            self._head += self._buffer[:count]
            if self._head.startswith(b"HTTP/1.1 100 ") and b"\r\n\r\n" in self._head:
                self._head = self._head.partition(b"\r\n\r\n")[2]
                self._ask_for_body()
                self.flush()
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self._head, 0, end + 2)
            if length is None:
                raise ConnectionAbortedError("an answer without a length")
            self.status = int(self._head[9:12])
            # Who is answered before all is sent must send the rest or hang up (RFC 9110 10.1.1)
            self.reusable = not (
                self._unsent or self._held or _CLOSING.search(self._head, 0, end + 2)
            )
            self._missing = int(length[1]) - (len(self._head) - end - 4)
        else:
            self._missing -= count
        if self._missing == 0:
            self.outcome = None
        return self._missing == 0

    def _ask_for_body(self) -> None:
        self._unsent += self._held
        self._held = []


def _split(jpeg: bytes, number: int) -> tuple[bytes, bytes]:
    """``jpeg`` in two, with room for a mark between them at the end of a comment (T.81 B.2.4.5)
    that also tells the images of a request apart."""
    length = 2 + 1 + _MARK_BYTES
    comment = b"\xff\xfe" + length.to_bytes(2, "big") + number.to_bytes(1, "big")
    return jpeg[:2] + comment, jpeg[2:]


def _head(path: str, kind: str, length: int, headers: Mapping[str, str], expect: bool) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers.items()),
        *(["Expect: 100-continue"] if expect else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _part(disposition: str) -> bytes:
    return f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode("ascii")
