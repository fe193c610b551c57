"""What breaks under the service: disk, store, clock, memory. It answers as before, or says why not,
and is whole again afterwards."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from app.bundle import ENCODER
from tests.api.test_processes import is_serving, serving_processes, started, until
from tests.faketime import preloaded
from tests.pictures import breast, dicom, png, sixteen_bit
from tests.real_parts import is_required
from tests.serving import Service, refused_to_start, serving
from tests.survive.load import lasting, learned, singles, under_load, wait_for_answers

SMALL = singles(1)[0]
FILM = dicom(sixteen_bit(breast(3000, 2000)))  # 12 MB
CLIENTS = 4
A_YEAR = 365 * 24 * 3600
ROOM = 16_000_000  # bytes: for the body once more, not for 29 MB of pixels


@pytest.fixture(scope="module")
def expected(server: Service) -> object:
    """The answer of a service that nothing happened to."""
    return lasting(server.post(SMALL.path, content=SMALL.body).content)


def assert_whole(service: Service, expected: object) -> None:
    answer = service.post(SMALL.path, content=SMALL.body)
    assert (answer.status_code, lasting(answer.content)) == (200, expected)
    assert service.get("/healthz/ready").status_code == 200


@contextmanager
def mounted(*options: str, at: Path) -> Iterator[None]:
    """A file system for the test; it is skipped where one may not mount."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        assert not (is_required() and os.geteuid() == 0), done.stderr
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_full_disk_changes_no_answer(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: object
) -> None:
    """Bodies, forms and archives stay in memory: nothing is ever written for a request."""
    full = tmp_path / "full"
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", at=full):
        for variable in ("TMPDIR", "HOME"):
            monkeypatch.setenv(variable, str(full))
        with pytest.raises(OSError, match="No space left"):
            (full / "rubbish").write_bytes(bytes(1 << 20))
        with serving(bundle_folder, tmp_path, gate="warn") as service:
            assert_whole(service, expected)
            form = {"files": ("film", FILM)}
            assert service.post("/predict/series", files=form).status_code == 200
            assert service.post("/predict", content=FILM).status_code == 200
            assert "Traceback" not in service.printed()


def test_read_only_store_serves(bundle_folder: Path, tmp_path: Path, expected: object) -> None:
    store = tmp_path / "store"
    shutil.copytree(bundle_folder, store / bundle_folder.parent.name / bundle_folder.name)
    with mounted("--bind", "-o", "ro", str(store), at=store):
        folder = store / bundle_folder.parent.name / bundle_folder.name
        with pytest.raises(OSError, match="Read-only"):
            (folder / "x").touch()
        with serving(folder, tmp_path) as service:
            assert_whole(service, expected)


def test_bundle_that_is_spoiled_under_the_service_is_refused_at_the_next_start_only(
    bundle_folder: Path, tmp_path: Path, expected: object
) -> None:
    folder = tmp_path / bundle_folder.parent.name / bundle_folder.name
    shutil.copytree(bundle_folder, folder)
    graph = folder / ENCODER
    whole = graph.read_bytes()
    with serving(folder, tmp_path) as service:
        graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert_whole(service, expected)
        assert service.terminate() == 0
    status, printed = refused_to_start(folder)
    assert status == 1
    assert "refused to start" in printed
    assert "Traceback" not in printed
    graph.write_bytes(whole)
    with serving(folder, tmp_path) as service:
        assert_whole(service, expected)


def test_clock_that_jumps_a_year_forth_and_back_changes_nothing(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: object
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = preloaded(
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",  # no clock jump moves it (clock_gettime(2))
    )
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with serving(bundle_folder, tmp_path) as service:
        monkeypatch.delenv("LD_PRELOAD")
        now = _year(service)
        for jump in (A_YEAR, -A_YEAR, 0):
            clock.write_text(f"{jump:+d}")
            _wait_for_year(service, now + round(jump / A_YEAR))
            assert_whole(service, expected)
            deadline = {"X-Deadline-Ms": "60000"}
            answer = service.post(SMALL.path, content=SMALL.body, headers=deadline)
            assert answer.status_code == 200
            assert service.get("/state").json()["uptime_seconds"] >= 0
        assert service.terminate() == 0


def _year(service: Service) -> int:
    """By the service's clock."""
    return int(service.get("/healthz/live").headers["date"].split()[3])


def test_process_killed_for_want_of_memory_takes_only_its_requests_with_it_and_is_replaced(
    bundle_folder: Path, tmp_path: Path, expected: object
) -> None:
    """The kernel's out-of-memory killer sends SIGKILL, to the one that has most."""
    with serving(bundle_folder, tmp_path, processes=2, workers=1, max_queue_seconds=60) as service:
        until(lambda: started(service) == 2)
        port = service.client.base_url.port or 80
        questions = learned(port, singles())
        with under_load(port, questions, clients=CLIENTS) as load:
            wait_for_answers(load, 5 * CLIENTS)
            victim, other = sorted(serving_processes(service))
            os.kill(victim, signal.SIGKILL)
            until(lambda: not is_serving(victim))
            dead = time.monotonic()
            wait_for_answers(load, 10 * CLIENTS)
        assert len(load.failed) <= CLIENTS
        assert all(outcome.sent <= dead for outcome in load.failed)
        assert load.wrong == []
        until(lambda: started(service) == 3)
        assert other in serving_processes(service)
        service.client.close()
        service.client = type(service.client)(base_url=service.client.base_url, timeout=60)
        assert_whole(service, expected)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_request_that_memory_is_lacking_for_fails_alone(
    bundle_folder: Path, tmp_path: Path, expected: object
) -> None:
    large = png(np.tile(breast(), (10, 12)))  # 6000 x 4800 pixels
    with serving(bundle_folder, tmp_path, processes=1, workers=1) as service:
        assert_whole(service, expected)
        pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[0]
        taken = int(pages) * resource.getpagesize()
        limits = resource.prlimit(service.process.pid, resource.RLIMIT_AS)
        narrow = (taken + len(large) + ROOM, limits[1])
        resource.prlimit(service.process.pid, resource.RLIMIT_AS, narrow)
        answer = service.post("/predict?gate=warn", content=large)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        resource.prlimit(service.process.pid, resource.RLIMIT_AS, limits)
        assert_whole(service, expected)


def _wait_for_year(service: Service, year: int) -> None:
    until(lambda: _year(service) == year)
