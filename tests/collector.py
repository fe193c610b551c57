"""Collectors of traces for tests: one in this process that shows what it was sent and may be made
to fail, and rotel, which is one that people run."""

from __future__ import annotations

import gzip
import importlib.resources
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.serving import free_port

_WITHIN_SECONDS = 60
KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class Told:
    """A span as it came; ``parent`` is "" for the first of a trace."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: str
    failed: bool
    start: int
    end: int
    attributes: dict[str, Any]
    process: dict[str, Any]


@dataclass
class Received:
    """What came so far. ``answer`` is called before each answer and gives its status."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[], int] = lambda: 200

    @property
    def spans(self) -> list[Told]:
        return [span for body in list(self.bodies) for span in _spans(body)]

    def wait_for(self, so: Callable[[list[Told]], bool]) -> list[Told]:
        """The spans once they are ``so``."""
        deadline = time.monotonic() + _WITHIN_SECONDS
        while not so(spans := self.spans):
            assert time.monotonic() < deadline, sorted(span.name for span in spans)
            time.sleep(0.05)
        return spans

    def trace(self, trace_id: str, spans: int) -> list[Told]:
        """So many spans of a trace, in the order in which they began, once they came."""

        def its(all_of_them: list[Told]) -> list[Told]:
            return [span for span in all_of_them if span.trace_id == trace_id]

        found = its(self.wait_for(lambda told: len(its(told)) >= spans))
        return sorted(found, key=lambda span: span.start)


@contextmanager
def collecting(port: int | None = None) -> Iterator[Received]:
    """Take what is posted to a loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = received.answer()
            if status == 200:
                packed = self.headers.get("Content-Encoding") == "gzip"
                received.bodies.append(gzip.decompress(body) if packed else body)
                received.headers.append(dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", port or 0), Handler) as server:
        received = Received(f"http://127.0.0.1:{server.server_port}/v1/traces")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield received
        finally:
            server.shutdown()


@contextmanager
def rotel(to: Received, folder: Path) -> Iterator[str]:
    """A real collector that passes traces on; where it takes them."""
    http, grpc = free_port(), free_port()
    program = importlib.resources.files("rotel") / "rotel-agent"
    settings = {
        "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
        "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
        "EXPORTER": "otlp",
        "OTLP_EXPORTER_PROTOCOL": "http",
        "OTLP_EXPORTER_ENDPOINT": to.url.removesuffix("/v1/traces"),
        "PID_FILE": str(folder / "rotel.pid"),
        "LOG_FILE": str(folder / "rotel-agent.log"),
    }
    with (folder / "rotel.log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), "start"],
            env=os.environ | {f"ROTEL_{name}": value for name, value in settings.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _WITHIN_SECONDS
        while not _listens(http):
            assert process.poll() is None, (folder / "rotel.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{http}/v1/traces"
    finally:
        process.terminate()
        process.wait(_WITHIN_SECONDS)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _spans(body: bytes) -> Iterator[Told]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        process = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Told(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=KINDS[span.kind],
                    failed=span.status.code == 2,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    process=process,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
