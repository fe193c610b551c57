"""SIGTERM: the readiness probe fails at once, what comes meanwhile is still answered, what is under
way is finished, and the service ends well."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.pictures import breast, png
from tests.serving import REPOSITORY, environment, free_port, serving

IMAGE = png(breast())
HEAD = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode()
PROCESSES_STARTED = "Application startup complete"
DRAIN_SECONDS = 6  # in which a loaded machine asks twice


@pytest.mark.parametrize("processes", [1, 2])
def test_service_told_to_end_is_not_ready_and_answers_all_that_came(
    bundle_folder: Path, tmp_path: Path, processes: int
) -> None:
    settings = {"processes": processes, "workers": 1, "drain_seconds": DRAIN_SECONDS}
    with serving(bundle_folder, tmp_path, **settings) as service:
        while service.printed().count(PROCESSES_STARTED) < processes:
            time.sleep(0.02)
        url = service.client.base_url
        with socket.create_connection((url.host, url.port or 80), timeout=60) as under_way:
            under_way.sendall(HEAD + IMAGE[:1000])
            while service.metric("mammoseq_in_flight_requests") < 1:
                time.sleep(0.02)
            service.process.send_signal(signal.SIGTERM)
            while (probe := httpx.get(f"{url}/healthz/ready")).status_code == 200:
                time.sleep(0.02)
            assert (probe.status_code, probe.json()["code"]) == (503, "not_ready")
            assert httpx.get(f"{url}/healthz/live").status_code == 200, "it is not to be killed"
            late = httpx.post(f"{url}/predict", content=IMAGE)
            assert (late.status_code, late.headers["connection"]) == (200, "close")
            while _accepts(url):
                time.sleep(0.05)
            assert service.process.poll() is None, "it must wait for the request under way"
            under_way.sendall(IMAGE[1000:])
            answer = b"".join(iter(lambda: under_way.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert service.process.wait(60) == 0
        assert "Traceback" not in service.printed()


@pytest.mark.parametrize("processes", [1, 2])
def test_second_sigterm_ends_the_wait(bundle_folder: Path, tmp_path: Path, processes: int) -> None:
    with serving(bundle_folder, tmp_path, drain_seconds=60, processes=processes) as service:
        while service.printed().count(PROCESSES_STARTED) < processes:
            time.sleep(0.02)
        service.process.send_signal(signal.SIGTERM)
        while service.get("/healthz/ready").status_code == 200:
            time.sleep(0.02)
        begun = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - begun < 30


def _accepts(url: httpx.URL) -> bool:
    try:
        socket.create_connection((url.host, url.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [1, 2])
def test_told_to_end_while_it_starts_it_ends_well(
    bundle_folder: Path, tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    """With a handler of its own: process 1 of a container would go on starting, and then serve."""
    output = tmp_path / "service.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            cwd=REPOSITORY,
            env=environment(bundle_folder, port=free_port(), processes=processes),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while "settings" not in output.read_text():
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert "Traceback" not in output.read_text()
