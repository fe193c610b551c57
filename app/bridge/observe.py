"""What can be seen of the bridge from outside: its log's names for studies, metrics, liveness."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

_STUCK_SECONDS = 900.0


def study_hash(salt: bytes, study_uid: str) -> str:
    """The study's name in the log: who does not have the salt learns nothing from it."""
    return hmac.new(salt, study_uid.encode(), hashlib.sha256).hexdigest()[:12]


class Pulse:
    """When the bridge last moved on. An outage of another side is not a standstill, nor is a wait
    of ``timeout_seconds`` for its answer."""

    def __init__(self, timeout_seconds: float) -> None:
        self._stuck_seconds = max(_STUCK_SECONDS, 2 * timeout_seconds)
        self._last = time.monotonic()

    def beat(self) -> None:
        self._last = time.monotonic()

    def is_alive(self) -> bool:
        return time.monotonic() - self._last < self._stuck_seconds


def serve(host: str, port: int, pulse: Pulse) -> ThreadingHTTPServer:
    """Answer ``/metrics`` and ``/healthz`` from a thread of their own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
            elif self.path == "/healthz":
                alive = pulse.is_alive()
                self._answer(200 if alive else 503, "text/plain", b"alive" if alive else b"stuck")
            else:
                self._answer(404, "text/plain", b"/metrics, /healthz")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass  # a path may hold anything

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
