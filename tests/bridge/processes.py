"""The service and the bridge as processes that a test may kill and start again in their place."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import httpx

from tests.orthanc import Orthanc
from tests.serving import READY_SECONDS, REPOSITORY, environment, free_port

_STOP_SECONDS = 60


class Part:
    """A process of ours on a port that stays the same; what it prints is appended to a file."""

    def __init__(self, module: str, env: dict[str, str], port: int, ready: str, log: Path) -> None:
        self._module = module
        self._env = env
        self._ready = ready
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                cwd=REPOSITORY, env=self._env, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until(self._is_ready, seconds=READY_SECONDS, what=f"{self._module} is ready")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.printed()
        try:
            return httpx.get(f"{self.url}{self._ready}", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(_STOP_SECONDS)
        self._process = None
        return status

    @property
    def process(self) -> Path:
        """Its folder in ``/proc``."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}")

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def metric(self, sample: str) -> float:
        """The value of a sample such as ``name_total{code="x"}``; 0 if it is not there yet."""
        found = re.search(rf"^{re.escape(sample)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", trust_env=False).text


def service(bundle_folder: Path, folder: Path, **settings: object) -> Part:
    """Mammoseq, with a gate that lets synthetic breasts pass."""
    port = free_port()
    env = environment(bundle_folder, port=port, gate="warn", workers=1, **settings)
    return Part("app", env, port, "/healthz/ready", folder / "service.log")


IN_A_HURRY = {"poll_seconds": 0.2, "stable_seconds": 1}
"""Settings of a bridge that looks often, and takes a study for complete soon."""


def bridge(
    archive: Orthanc,
    service_url: str,
    folder: Path,
    preload: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> Part:
    """The bridge, in a hurry unless ``settings`` say otherwise; ``preload`` for its dynamic
    linker."""
    port = free_port()
    chosen = {
        "archive_url": archive.web,
        "service_url": service_url,
        "port": port,
        "log_format": "text",
        **IN_A_HURRY,
        **settings,
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MAMMOSEQ_")}
    settled = {f"MAMMOSEQ_BRIDGE_{k.upper()}": str(v) for k, v in chosen.items()}
    env = inherited | settled | dict(preload)
    return Part("app.bridge", env, port, "/healthz", folder / "bridge.log")


@contextmanager
def started(*parts: Part) -> Iterator[None]:
    try:
        for part in parts:
            part.start()
        yield
    finally:
        for part in parts:
            part.kill()


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait until ``condition`` holds; it fails the test after so many ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.1)
