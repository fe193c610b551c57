"""A peer as child processes in its own virtual environment, on a free port of loopback."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measured import process_cpu_seconds
from benchmarks.peers.catalogue import Peer
from benchmarks.peers.work import MODEL_STORE, Answer
from benchmarks.service import free_port

ENVIRONMENTS = Path(".venv/peers")
_READY_SECONDS = 120.0
_STOP_SECONDS = 10.0
_MARK = "MAMMOSEQ_PEER"  # environment variable by which all processes of a peer are known


class PeerError(Exception):
    """The peer cannot be measured; the message says why."""


@dataclass(frozen=True)
class Served:
    peer: Peer
    port: int
    pid: int
    mark: str

    def ask(self, file: bytes) -> Answer:
        """The answer to one file. Raises ``PeerError``, or ``OSError`` if nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            headers, body = self.peer.request(file)
            connection.request("POST", self.peer.path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise PeerError(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise PeerError(f"status {response.status}: {content[:500].decode(errors='replace')}")
        return self.peer.answer(content)

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        return sum(process_cpu_seconds(pid) for pid in _marked(self.mark))


@contextmanager
def running_peer(peer: Peer, model_store: Path, workers: int, file: bytes) -> Iterator[Served]:
    """Start ``peer``, wait until it answers to ``file``, end all its processes afterwards.

    Raises ``PeerError``.
    """
    python = ENVIRONMENTS / peer.environment_name / "bin" / "python"
    if not python.exists():
        raise PeerError("not installed (make peers-install)")
    port, mark = free_port(), f"{peer.name}-{uuid.uuid4().hex}"
    environment = {
        **os.environ,
        _MARK: mark,
        MODEL_STORE: str(model_store.resolve()),
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",  # one thread a worker, as many workers as cores
        "OPENBLAS_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "BENTOML_DO_NOT_TRACK": "1",
    }
    command = [
        str(python.absolute()),
        "-m",
        f"benchmarks.peers.{peer.name}",
        str(port),
        str(workers),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        served = Served(peer, port, process.pid, mark)
        try:
            try:
                _wait_until_ready(served, process, file)
            except PeerError as error:
                log.seek(0)
                printed = log.read()[-2000:].decode(errors="replace")
                raise PeerError(f"{error}\n{printed}") from None
            yield served
        finally:
            _end(process, mark)


def _wait_until_ready(served: Served, process: subprocess.Popen[bytes], file: bytes) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    last: Exception = PeerError("nothing listens")
    while time.monotonic() < deadline and process.poll() is None:
        try:
            served.ask(file)
            return
        except (OSError, PeerError, ValueError) as error:
            last = error
        time.sleep(0.2)
    raise PeerError(f"did not become ready: {last}")


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    while left := _marked(mark):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    process.wait()


def _marked(mark: str) -> list[int]:
    """The processes that inherited a mark (Linux)."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
