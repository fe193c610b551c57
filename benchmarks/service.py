"""The real service as a child process, on a free port of the loopback address."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0


class ServiceError(Exception):
    """The service did not start; the message ends with what it printed."""


@dataclass(frozen=True)
class Service:
    port: int
    pid: int

    def fetch(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def running_service(
    model_store: Path,
    *,
    port: int | None = None,
    cores: Collection[int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Start ``python -m app`` with this interpreter, wait until it is ready, stop it at the end.

    On ``cores`` only, if given; ``settings`` are further environment variables.
    """
    port = port or free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            env=environment(model_store, port) | dict(settings or {}),
            stdout=log,
            stderr=log,
        )
        if cores is not None:  # at once, before it counts them
            os.sched_setaffinity(process.pid, cores)
        try:
            service = Service(port, process.pid)
            _wait_until_ready(service, process, log)
            yield service
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes], patience_seconds: float = _STOP_SECONDS) -> None:
    """SIGTERM, and SIGKILL where that has not ended it in time."""
    process.terminate()
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(service: Service, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if service.fetch("GET", "/healthz/ready")[0] == 200:
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.1)
    log.seek(0)
    printed = log.read()[-2000:].decode(errors="replace")
    raise ServiceError(f"the service did not become ready:\n{printed}")


def environment(model_store: Path, port: int) -> dict[str, str]:
    """This process' environment, with the settings that a benchmark needs."""
    return {
        **os.environ,
        "MAMMOSEQ_HOST": "127.0.0.1",
        "MAMMOSEQ_PORT": str(port),
        "MAMMOSEQ_MODEL_STORE": str(model_store),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
