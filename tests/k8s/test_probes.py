"""The timings of the manifests, held against the service itself: probes, the end of a pod.

Whoever changes a probe, the grace period or what the service does at its end, and breaks what they
are to each other, is told here."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from os import POSIX_FADV_DONTNEED, posix_fadvise
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.processes import GRACE_SECONDS
from app.settings import Settings
from benchmarks.inputs import exams_of_a_breast, pictures
from tests.cpu_quota import cpu_quota
from tests.kustomize import K8S, OVERLAYS, Manifest, named, rendered
from tests.pictures import breast, png
from tests.serving import REPOSITORY, environment, free_port, serving
from tests.survive.load import Question, under_load, wait_for_answers

# Of the time that a pod has to become ready it may take a quarter, with a quarter of its CPU
START_MARGIN = 4
START_CPU = 1 / 4
# Between the last answer and SIGKILL: for the process to end
SPARE_SECONDS = 5
PROBES_UNDER_LOAD = 30
STEP_SECONDS = 120


@dataclass(frozen=True)
class Probe:
    """A probe of the manifest, with the defaults of Kubernetes."""

    path: str
    period_seconds: int
    timeout_seconds: int
    failures: int

    @property
    def patience_seconds(self) -> int:
        return self.period_seconds * self.failures


def probe(container: Manifest, name: str) -> Probe:
    told = container[name]
    return Probe(
        told["httpGet"]["path"],
        told.get("periodSeconds", 10),
        told.get("timeoutSeconds", 1),
        told.get("failureThreshold", 3),
    )


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(K8S / "overlays" / request.param)


@pytest.fixture(scope="module")
def cpu() -> list[Manifest]:
    return rendered(K8S / "overlays" / "cpu")


def pod_of(manifests: list[Manifest]) -> Manifest:
    pod: Manifest = named(manifests, "Deployment")["spec"]["template"]["spec"]
    return pod


def container_of(manifests: list[Manifest]) -> Manifest:
    (container,) = pod_of(manifests)["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    """Of the ConfigMap, by the names of ``Settings``."""
    (config,) = (each for each in manifests if each["kind"] == "ConfigMap")
    return {name.removeprefix("MAMMOSEQ_").lower(): value for name, value in config["data"].items()}


def settings_here(manifests: list[Manifest], **others: Any) -> dict[str, Any]:
    """Those that do not name a place in the container, nor the outside."""
    places = ("host", "port", "metrics_port", "model_store", "users_file", "api_keys_file")
    told = {name: v for name, v in settings_of(manifests).items() if name not in places}
    return told | others


def pre_stop_seconds(container: Manifest) -> int:
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    return int(seconds)


def test_a_pod_that_ends_has_time_to_answer_all_that_it_has(manifests: list[Manifest]) -> None:
    drain = float(settings_of(manifests).get("drain_seconds", Settings().drain_seconds))
    needed = pre_stop_seconds(container_of(manifests)) + drain + GRACE_SECONDS
    assert needed + SPARE_SECONDS <= pod_of(manifests)["terminationGracePeriodSeconds"]


def test_sigterm_comes_when_no_new_requests_do(manifests: list[Manifest]) -> None:
    # Endpoints are withdrawn when the pod is told to end; nodes take a second or two to hear of it
    assert pre_stop_seconds(container_of(manifests)) >= 5


def test_readiness_is_quick_and_liveness_is_patient(manifests: list[Manifest]) -> None:
    container = container_of(manifests)
    ready, live = probe(container, "readinessProbe"), probe(container, "livenessProbe")
    assert ready.patience_seconds <= 15, "a pod that cannot serve is asked for too long"
    assert live.patience_seconds >= 4 * ready.patience_seconds, "it is killed before it can recover"
    for each in (ready, live):
        assert each.timeout_seconds <= each.period_seconds


def test_a_rollout_waits_longer_than_a_start_may_take(manifests: list[Manifest]) -> None:
    start = probe(container_of(manifests), "startupProbe")
    deadline = named(manifests, "Deployment")["spec"]["progressDeadlineSeconds"]
    assert deadline >= 2 * start.patience_seconds


def test_cold_start_on_little_cpu_is_far_within_the_startup_probe(
    cpu: list[Manifest], bundle_folder: Path
) -> None:
    container = container_of(cpu)
    start = probe(container, "startupProbe")
    cores = START_CPU * float(container["resources"]["requests"]["cpu"])
    forget_files(bundle_folder)
    port = free_port()
    settings = settings_here(cpu, host="127.0.0.1", port=free_port(), metrics_port=port)
    began = time.monotonic()
    with (
        cpu_quota(cores) as members,
        process(environment(bundle_folder, **settings), enter=members) as service,
    ):
        until(lambda: status(port, start.path) == 200, service)
        took = time.monotonic() - began
    print(f"cold start on {cores} cores: ready after {took:.1f} s of {start.patience_seconds}")
    assert took < start.patience_seconds / START_MARGIN


def forget_files(bundle_folder: Path) -> None:
    """Of the service, its packages and its model: so that they are read from the disk."""
    listed = (REPOSITORY / "requirements" / "serve.txt").read_text()
    files = [*(REPOSITORY / "app").rglob("*"), *bundle_folder.rglob("*")]
    for name in re.findall(r"^([\w.-]+)(?:\[[^]]*])?==", listed, re.MULTILINE):
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        files += [Path(str(found.locate_file(file))) for file in found.files or ()]
    for file in files:
        if file.is_file():
            with file.open("rb") as opened:
                posix_fadvise(opened.fileno(), 0, 0, POSIX_FADV_DONTNEED)


@contextmanager
def process(
    variables: dict[str, str], *, enter: Path | None = None, grace_seconds: float = GRACE_SECONDS
) -> Iterator[subprocess.Popen[bytes]]:
    """The service, in the cgroup with the file ``enter`` from its first instruction."""
    code = (
        "import sys; from app.api import processes; from app.__main__ import main; "
        f"processes.GRACE_SECONDS = {grace_seconds}; sys.exit(main())"
    )
    command = 'echo $$ > "$0" && exec "$@"' if enter else 'exec "$@"'
    started = subprocess.Popen(
        ["sh", "-c", command, str(enter), sys.executable, "-c", code], cwd=REPOSITORY, env=variables
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
        started.wait(GRACE_SECONDS + STEP_SECONDS)


def until(condition: Callable[[], bool], service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while not condition():
        assert service.poll() is None, "the service has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(port: int, path: str, timeout_seconds: float = 30) -> int | None:
    """As the kubelet asks: on a connection of its own. None if there is no answer."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=timeout_seconds).status_code
    except httpx.TransportError:
        return None


@pytest.fixture(scope="module")
def largest() -> list[Question]:
    """What keeps the service busiest: films of 12 megapixels, raw and to be decompressed, and a
    study in one form."""
    films = [
        Question("/predict?gate=warn", picture.file)
        for kind in ("DICOM raw", "DICOM JPEG 2000")
        for picture in pictures(4096, 3072, kind)
    ]
    files = [("files", (str(i), file)) for i, file in enumerate(exams_of_a_breast(8, dicom=True))]
    study = httpx.Request("POST", "http://localhost", files=files)
    kind = ("Content-Type", study.headers["Content-Type"])
    return [*films, Question("/predict/series?gate=warn", study.read(), (kind,))]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_no_probe_fails_under_full_load_as_often_as_it_takes_to_be_acted_upon(
    cpu: list[Manifest],
    bundle_folder: Path,
    tmp_path: Path,
    largest: list[Question],
    processes: int,
) -> None:
    """Asked without a pause, where the kubelet makes one."""
    container = container_of(cpu)
    workers = int(container["resources"]["requests"]["cpu"])
    port = free_port()
    settings = settings_here(
        cpu, metrics_port=port, processes=processes, workers=max(1, workers // processes)
    )
    with (
        serving(bundle_folder, tmp_path, **settings) as service,
        under_load(service.client.base_url.port or 0, largest, clients=8) as load,
    ):
        wait_for_answers(load, 8)
        for name in ("readinessProbe", "livenessProbe"):
            asked = probe(container, name)
            took, failures = [], 0
            for _ in range(PROBES_UNDER_LOAD):
                began = time.monotonic()
                answered = status(port, asked.path, asked.timeout_seconds)
                took.append(time.monotonic() - began)
                failures = 0 if answered == 200 else failures + 1
                assert failures < asked.failures, f"{name}: {answered}"
            print(f"{processes} processes, {name}: {max(took):.2f} s of {asked.timeout_seconds}")
        wait_for_answers(load, 8)
    statuses = [outcome.status for outcome in load.outcomes]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 8


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_pod_that_ends_is_not_ready_within_a_period_and_gone_in_time(
    cpu: list[Manifest], bundle_folder: Path, processes: int
) -> None:
    """With an upload that never comes to its end: it is cut, and the status is 0. The service's own
    time for that is cut to two seconds here."""
    ready = probe(container_of(cpu), "readinessProbe")
    grace_seconds = 2
    image = png(breast())
    port, metrics_port = free_port(), free_port()
    settings = settings_here(
        cpu, host="127.0.0.1", port=port, metrics_port=metrics_port, processes=processes, workers=1
    )
    variables = environment(bundle_folder, **settings)
    with process(variables, grace_seconds=grace_seconds) as service:
        until(lambda: status(metrics_port, ready.path) == 200, service)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as upload:
            head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(image)}"
            upload.sendall(f"{head}\r\n\r\n".encode() + image[:1000])
            until(lambda: in_flight(metrics_port) == 1, service)
            began = time.monotonic()
            service.send_signal(signal.SIGTERM)
            while status(metrics_port, ready.path) == 200:
                assert time.monotonic() - began < ready.period_seconds
            assert service.wait(grace_seconds + STEP_SECONDS) == 0
        assert time.monotonic() - began < grace_seconds + SPARE_SECONDS


def in_flight(port: int) -> float:
    for line in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text.splitlines():
        if line.startswith("mammoseq_in_flight_requests "):
            return float(line.rpartition(" ")[2])
    return 0
