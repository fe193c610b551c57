"""Several processes behind one port, as one service."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from app.bundle import ENCODER
from tests.pictures import breast, png
from tests.serving import (
    REPOSITORY,
    Service,
    environment,
    free_port,
    refused_to_start,
    serving,
)

IMAGE = png(breast())
WITHIN_SECONDS = 180
PROCESSES = 2
ANSWERED = 'mammoseq_requests_total{route="/predict",status="200"}'

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds the processes in /proc"
)


@pytest.fixture(scope="module")
def several(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("several")
    with serving(bundle_folder, folder, processes=PROCESSES, workers=1, max_requests=5) as service:
        until(lambda: started(service) == PROCESSES)
        yield service


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def started(service: Service) -> int:
    """How many processes have begun to serve since the start."""
    return service.printed().count("Application startup complete")


def serving_processes(service: Service) -> set[int]:
    """The processes below the supervisor that have the port open; its helper has not."""
    parent = service.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def is_serving(process: int) -> bool:
    """Whether it is there, and not only because nobody has asked how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def shared_folders(processes: set[int]) -> set[Path]:
    """The folders of metrics that the processes have files open in."""
    return {
        Path(line.split()[-1]).parent
        for process in processes
        for line in Path(f"/proc/{process}/maps").read_text().splitlines()
        if line.endswith(".db")
    }


def connected(service: Service, stack: ExitStack) -> httpx.Client:
    """A client whose connection is open and kept."""
    client = stack.enter_context(httpx.Client(base_url=service.client.base_url, timeout=60))
    assert client.get("/healthz/live").status_code == 200
    return client


def open_connections(process: int) -> int:
    """Established connections of a process (state 01 in proc_net_tcp)."""
    states = {
        fields[9]: fields[3]
        for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())
    }
    sockets = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            sockets.append(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    return sum(states.get(inode) == "01" for inode in sockets)


def test_every_process_gets_clients_and_metrics_are_of_all_processes(several: Service) -> None:
    with ExitStack() as stack:
        clients = [connected(several, stack) for _ in range(4 * PROCESSES)]
        counts = [open_connections(process) for process in serving_processes(several)]
        assert len(counts) == PROCESSES
        assert min(counts) >= 1
        before = several.metric(ANSWERED)
        with ThreadPoolExecutor(PROCESSES) as pool:
            answers = list(pool.map(lambda c: c.post("/predict", content=IMAGE), clients))
        assert [answer.status_code for answer in answers] == [200] * len(clients)
        assert len({answer.json()["calibrated_probability"] for answer in answers}) == 1
        for client in clients:
            (line,) = [ln for ln in client.get("/metrics").text.splitlines() if ANSWERED in ln]
            assert float(line.rpartition(" ")[2]) == before + len(clients)


def test_metrics_have_the_names_and_labels_of_a_single_process(
    several: Service, server: Service
) -> None:
    def told(service: Service) -> set[str]:
        service.post("/predict", content=IMAGE)
        text = service.get("/metrics").text
        assert re.search(r"^mammoseq_model_info\{.*\} 1\.0$", text, re.MULTILINE)
        return {
            line
            for line in text.splitlines()
            if line.startswith(("# TYPE mammoseq_", "# HELP mammoseq_")) and "_created" not in line
        }

    assert told(several) == told(server)


def test_memory_is_told_of_all_processes_together(several: Service) -> None:
    text = several.get("/metrics").text
    (told,) = re.findall("^process_resident_memory_bytes (.*)$", text, re.MULTILINE)
    resident = 0
    for process in serving_processes(several):
        status = Path(f"/proc/{process}/status").read_text()
        resident += 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
    assert float(told) == pytest.approx(resident, rel=0.1)


def test_machine_and_model_are_printed_once(several: Service) -> None:
    printed = several.printed()
    assert len(re.findall("^model ", printed, re.MULTILINE)) == 1
    (machine,) = re.findall("^machine (.*)$", printed, re.MULTILINE)
    for part in (
        f'"processes": {PROCESSES}',
        '"workers_per_process": 1',
        '"ort_threads_per_call": 1',
        '"requests_per_process": 3',
        '"provider": "CPUExecutionProvider"',
    ):
        assert part in machine


def test_process_that_dies_is_replaced_and_takes_nothing_in_flight_with_it(
    several: Service,
) -> None:
    length = f"Content-Length: {len(IMAGE)}"
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode()
    address = (several.client.base_url.host, several.client.base_url.port or 80)
    several.post("/predict", content=IMAGE)
    answered = several.metric(ANSWERED)
    before, starts = serving_processes(several), started(several)
    counts = {process: open_connections(process) for process in before}
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(head + IMAGE[:1000])
        until(lambda: several.metric("mammoseq_in_flight_requests") == 1)
        (its,) = [process for process in before if open_connections(process) > counts[process]]
        os.kill(its, signal.SIGKILL)
        until(lambda: started(several) == starts + 1)
    after = serving_processes(several)
    assert (len(after), its in after, len(after & before)) == (PROCESSES, False, PROCESSES - 1)
    assert several.metric("mammoseq_in_flight_requests") == 0
    with ExitStack() as stack:
        for _ in range(2 * PROCESSES):
            client = connected(several, stack)
            assert client.post("/predict", content=IMAGE).status_code == 200
    assert several.metric(ANSWERED) == answered + 2 * PROCESSES, "what the dead one did counts"


def test_sigterm_ends_all_well_after_what_is_under_way(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(bundle_folder, tmp_path, processes=PROCESSES, workers=1) as service:
        until(lambda: started(service) == PROCESSES)
        processes = serving_processes(service)
        folders = shared_folders(processes)
        assert len(folders) == 1
        address = (service.client.base_url.host, service.client.base_url.port or 80)
        with (
            socket.create_connection(address, timeout=60) as connection,
            ThreadPoolExecutor(1) as pool,
        ):
            head = (
                f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
            )
            connection.sendall(head.encode() + IMAGE[:1000])
            until(lambda: service.metric("mammoseq_in_flight_requests") == 1)
            service.client.close()
            ended = pool.submit(service.terminate)
            until(lambda: "Shutting down" in service.printed())
            connection.sendall(IMAGE[1000:])
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
            assert answer.startswith(b"HTTP/1.1 200")
            assert ended.result() == 0
        assert "Traceback" not in service.printed()
        assert not any(Path(f"/proc/{process}").exists() for process in processes)
        assert not any(folder.exists() for folder in folders)


def test_processes_end_when_their_supervisor_is_killed(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(bundle_folder, tmp_path, processes=PROCESSES, workers=1) as service:
        until(lambda: started(service) == PROCESSES)
        processes = serving_processes(service)
        (folder,) = shared_folders(processes)
        service.process.kill()
        service.process.wait()
        until(lambda: not any(is_serving(process) for process in processes))
        shutil.rmtree(folder)  # nobody is left to do it


def test_refused_start_ends_all_with_one_line(bundle_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / bundle_folder.parent.name / bundle_folder.name
    shutil.copytree(bundle_folder, broken)
    (broken / ENCODER).unlink()
    status, printed = refused_to_start(broken, processes=PROCESSES)
    assert status == 1
    refusals = [line for line in printed.splitlines() if line.startswith("refused to start:")]
    assert refusals == [f"refused to start: {broken / ENCODER} is missing"]
    assert "Traceback" not in printed


def test_refused_start_does_not_wait_for_answers_of_processes_that_are_gone(
    bundle_folder: Path, tmp_path: Path
) -> None:
    """The supervisor asks whether they are well, here with an hour's patience."""
    script = (
        "import sys\n"
        "from app import __main__\n"
        "from app.api import processes\n"
        "options = processes.server_options\n"
        "processes.server_options = lambda settings: (\n"
        "    options(settings) | {'timeout_worker_healthcheck': 3600})\n"
        "sys.exit(__main__.main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment(
            bundle_folder, port=free_port(), processes=PROCESSES, model_key=tmp_path / "none.pem"
        ),
        capture_output=True,
        timeout=5 * WITHIN_SECONDS,
        check=False,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("refused to start: ") == 1


def test_a_single_process_starts_no_other(server: Service) -> None:
    assert not Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    assert '"processes": 1' in server.printed()
