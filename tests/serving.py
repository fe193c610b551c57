"""The service as the tests meet it: a process of its own, on a free loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from benchmarks.service import stop

REPOSITORY = Path(__file__).resolve().parents[1]
READY_SECONDS = 180  # on a machine that does other things, too
STOP_SECONDS = 120


@dataclass
class Service:
    """A running ``python -m app``, a client for it, and what it has printed."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    output: Path

    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    def terminate(self) -> int:
        """SIGTERM, as a cluster stops it; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def metric(self, sample: str) -> float:
        """The value of a sample such as ``name_total{code="x"}``; 0 if it is not there yet."""
        for line in self.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0


def environment(bundle_folder: Path, **settings: object) -> dict[str, str]:
    """This process' environment with no settings of the service but these; None is unset."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MAMMOSEQ_")}
    chosen: dict[str, object] = {
        "model_store": bundle_folder.parents[1],
        "model": bundle_folder.parent.name,
        "log_format": "text",
    }
    return inherited | {
        f"MAMMOSEQ_{name.upper()}": str(value)
        for name, value in (chosen | settings).items()
        if value is not None
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(bundle_folder: Path, folder: Path, **settings: object) -> Iterator[Service]:
    """Start the service with ``settings`` (names of fields of ``Settings``); stop it at the end."""
    port = free_port()
    output = folder / "service.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            cwd=REPOSITORY,
            env=environment(bundle_folder, port=port, **settings),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        service = Service(process, client, output)
        try:
            _wait_until_ready(service, settings.get("metrics_port", port))
            yield service
        finally:
            stop(process, STOP_SECONDS)


@contextmanager
def serving_here(application: ASGIApp, **options: Any) -> Iterator[httpx.Client]:
    """A real server in this process, for tests that break a part of it; a client for it."""
    port = free_port()
    config = uvicorn.Config(application, port=port, access_log=False, log_config=None, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)


def _wait_until_ready(service: Service, port: object) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            raise AssertionError(f"the service ended before it was ready:\n{service.printed()}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/healthz/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the service was not ready in time:\n{service.printed()}")


def refused_to_start(bundle_folder: Path, **settings: object) -> tuple[int, str]:
    """Start the service where it must not start; returns its exit status and what it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=REPOSITORY,
        env=environment(bundle_folder, **{"port": free_port(), **settings}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=READY_SECONDS,
        check=False,
        text=True,
    )
    return ended.returncode, ended.stdout
