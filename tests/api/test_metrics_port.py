"""Probes and metrics on a port of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.pictures import breast, png
from tests.serving import Service, free_port, refused_to_start, serving

IMAGE = png(breast())
WATCHED = ("/metrics", "/healthz/live", "/healthz/ready")


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def apart(
    request: pytest.FixtureRequest, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, httpx.Client]]:
    port = free_port()
    with (
        serving(
            bundle_folder,
            tmp_path_factory.mktemp("apart"),
            metrics_port=port,
            processes=request.param,
            workers=1,
        ) as service,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as watcher,
    ):
        yield service, watcher


def test_what_machines_watch_is_on_that_port_only(apart: tuple[Service, httpx.Client]) -> None:
    service, watcher = apart
    for path in WATCHED:
        assert watcher.get(path).status_code == 200
        assert service.get(path).status_code == 404
        assert path not in service.get("/openapi.json").json()["paths"]


def test_nothing_else_is_on_that_port(apart: tuple[Service, httpx.Client]) -> None:
    _, watcher = apart
    for path in ("/", "/state", "/v1/models", "/openapi.json"):
        answer = watcher.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = watcher.post("/predict", content=IMAGE)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_metrics_there_are_of_the_whole_service(apart: tuple[Service, httpx.Client]) -> None:
    service, watcher = apart
    answered = 'mammoseq_requests_total{route="/predict",status="200"}'

    def told() -> float:
        for line in watcher.get("/metrics", headers={"Connection": "close"}).text.splitlines():
            if line.startswith(answered):
                return float(line.rpartition(" ")[2])
        return 0.0

    before = told()
    with httpx.Client(base_url=service.client.base_url, timeout=60) as another:
        for client in (service.client, another):
            assert client.post("/predict", content=IMAGE).status_code == 200
    assert [told() for _ in range(4)] == [before + 2] * 4  # whichever process answers


def test_told_to_end_it_is_not_ready_and_still_counts_what_is_finished(
    bundle_folder: Path, tmp_path: Path
) -> None:
    port = free_port()
    with (
        serving(bundle_folder, tmp_path, metrics_port=port) as service,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as watcher,
    ):
        address = (service.client.base_url.host, service.client.base_url.port or 80)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
        with socket.create_connection(address, timeout=60) as upload, ThreadPoolExecutor(1) as pool:
            upload.sendall(head.encode() + IMAGE[:1000])
            while "mammoseq_in_flight_requests 1.0" not in watcher.get("/metrics").text:
                pass
            ended = pool.submit(service.terminate)
            while (ready := watcher.get("/healthz/ready")).status_code == 200:
                pass
            assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
            assert watcher.get("/healthz/live").status_code == 200
            upload.sendall(IMAGE[1000:])
            assert upload.recv(12) == b"HTTP/1.1 200"
            assert ended.result() == 0


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ["port", "metrics_port"])
def test_a_port_that_is_taken_refuses_the_start_with_one_line(
    bundle_folder: Path, name: str, processes: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, printed = refused_to_start(bundle_folder, processes=processes, **{name: port})
    assert status == 1
    (line,) = [line for line in printed.splitlines() if line.startswith("refused to start: ")]
    assert f"MAMMOSEQ_{name.upper()} {port}: Address already in use" in line
    assert "Traceback" not in printed


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_refuses_the_start_with_one_line(
    bundle_folder: Path, host: str
) -> None:
    status, printed = refused_to_start(bundle_folder, host=host)
    assert status == 1
    assert f"refused to start: MAMMOSEQ_HOST {host}, " in printed


def test_the_two_ports_must_differ(bundle_folder: Path) -> None:
    port = free_port()
    status, printed = refused_to_start(bundle_folder, port=port, metrics_port=port)
    assert (status, "METRICS_PORT" in printed) == (1, True)
