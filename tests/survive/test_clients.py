"""Clients that are slow, silent, or gone: the service goes on answering the others, and keeps
nothing of theirs."""

from __future__ import annotations

import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.api.test_load import LARGE, answer_on, connected, head, settled
from tests.pictures import breast, png
from tests.serving import Service, serving
from tests.survive.load import Question, learned, singles, under_load, wait_for_answers

IMAGE = png(breast(300, 200))
IN_FLIGHT = "mammoseq_in_flight_requests"
INTERNAL_ERRORS = 'mammoseq_problems_total{code="internal_error"}'
SLOW = 20
MOST_BYTES = (
    20_000_000  # of all bodies together; a body of as many is let in where there is no other
)
FILES_OF_ITS_OWN = 200  # that the service or this process has open besides connections

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")


def open_files(service: Service) -> int:
    return sum(1 for _ in Path(f"/proc/{service.process.pid}/fd").iterdir())


@pytest.fixture(scope="module")
def own(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("own")
    with serving(
        bundle_folder,
        folder,
        max_requests=2 * SLOW,
        max_queue_seconds=60,
        max_bytes_in_flight=MOST_BYTES,
    ) as service:
        yield service


@pytest.fixture(scope="module")
def questions(own: Service) -> list[Question]:
    return learned(own.client.base_url.port or 80, singles())


@contextmanager
def trickling(connections: list[socket.socket], data: bytes) -> Iterator[None]:
    """One byte a second on each."""
    over = threading.Event()

    def trickle() -> None:
        for byte in data:
            if over.wait(1):
                return
            for connection in connections:
                connection.sendall(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("slow_part", ["header", "body"])
def test_clients_of_a_byte_a_second_do_not_slow_others_and_leave_nothing(
    own: Service, questions: list[Question], slow_part: str
) -> None:
    begun = head(len(IMAGE)) if slow_part == "body" else b"POST /predict HTTP/1.1\r\nX-Slow: "
    before = open_files(own)
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(own)) for _ in range(SLOW)]
        for connection in slow:
            connection.sendall(begun)
        if slow_part == "body":
            assert settled(own, IN_FLIGHT, SLOW)
        port = own.client.base_url.port or 80
        with trickling(slow, IMAGE), under_load(port, questions) as load:
            wait_for_answers(load, 40)
    assert load.failed == load.wrong == []
    assert settled(own, IN_FLIGHT, 0)
    assert _falls_to(own, before)


def test_half_closed_clients_leave_nothing(own: Service) -> None:
    """One that says that it sends no more, in the middle of its header, of its body, after it."""
    before = open_files(own)
    with ExitStack() as stack:
        for sent in (b"POST /predict HT", head(len(IMAGE)) + IMAGE[:50], head(len(IMAGE)) + IMAGE):
            connection = stack.enter_context(connected(own))
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass  # an answer or none: the service closes it
        assert settled(own, IN_FLIGHT, 0)
        assert _falls_to(own, before)
    assert "Traceback" not in own.printed()


def _form(file: bytes) -> bytes:
    """A request to read a study, as a browser sends a file."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = part + file + b"\r\n--b--\r\n"
    kind = "Content-Type: multipart/form-data; boundary=b"
    return head(len(body), kind, path="/predict/series") + body


def _disconnect(connection: socket.socket, how: str) -> None:
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "half-closed":
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    connection.close()


@pytest.mark.parametrize("how", ["closed", "half-closed", "reset"])
def test_client_that_disconnects_in_the_middle_of_its_upload_leaves_nothing(
    own: Service, how: str
) -> None:
    """No file, no place among the requests, and not a byte of what bodies may take together."""
    before, failed = open_files(own), own.metric(INTERNAL_ERRORS)
    for request in (head(len(LARGE)) + LARGE, _form(IMAGE), _form(LARGE)):
        uploads = [connected(own) for _ in range(SLOW)]
        for upload in uploads:
            upload.sendall(request[: len(request) // 2])
        assert settled(own, IN_FLIGHT, SLOW)
        for upload in uploads:
            _disconnect(upload, how)
        assert settled(own, IN_FLIGHT, 0)
    assert own.post("/predict", content=bytes(MOST_BYTES)).status_code == 415, "all is free again"
    own.client.close()
    own.client = type(own.client)(base_url=own.client.base_url, timeout=60)
    assert _falls_to(own, before)
    assert own.metric(INTERNAL_ERRORS) == failed
    assert "Traceback" not in own.printed()


def test_idle_connections_cost_little_and_others_are_answered(
    bundle_folder: Path, tmp_path: Path
) -> None:
    """5000 of them, or as many as files may be open; they end by themselves."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits[1] if limits[1] != resource.RLIM_INFINITY else 1 << 20
    idle = min(5000, most - FILES_OF_ITS_OWN)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, idle + FILES_OF_ITS_OWN), limits[1]))
    try:
        with serving(bundle_folder, tmp_path) as service, ExitStack() as stack:
            assert service.post("/predict?gate=warn", content=IMAGE).status_code == 200
            files, memory = open_files(service), _resident(service)
            for number in range(idle):
                connection = stack.enter_context(connected(service))
                if number % 2:  # half of them have begun to say something
                    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            while open_files(service) < files + idle:
                time.sleep(0.05)
            with connected(service) as connection:
                connection.sendall(head(len(IMAGE), path="/predict?gate=warn") + IMAGE)
                assert answer_on(connection)[0] == 200
            assert _resident(service) - memory < 40_000 * idle
            stack.close()
            assert _falls_to(service, files)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _resident(service: Service) -> int:
    """Bytes of memory that the service holds."""
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def _falls_to(service: Service, files: int) -> bool:
    """Whether no more than so many files are open, after a while."""
    deadline = time.monotonic() + 60
    while open_files(service) > files:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
