"""The client of the service, at a real one that takes a single request at a time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from app.bridge.faults import Refused, Unavailable
from app.bridge.service import Service
from app.bundle import Bundle
from tests.bridge.studies import blank_study, study
from tests.serving import Service as Running
from tests.serving import free_port, serving


@pytest.fixture(scope="module")
def running(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with serving(bundle_folder, folder, gate="warn", max_requests=1) as service:
        yield service


@pytest.fixture
def service(running: Running) -> Service:
    return Service(running.client, "sr,sc")


def test_the_model_is_named_as_results_name_it(service: Service, bundle: Bundle) -> None:
    assert service.model() == bundle.sha256[:16]


def test_results_come_back_as_files(service: Service, bundle: Bundle) -> None:
    sent = study("read", views=("LCC", "RCC"))
    results = [dcmread(BytesIO(file)) for file in service.read(sent.files)]
    assert sorted({result.Modality for result in results})[-1] == "SR"
    assert {result.StudyInstanceUID for result in results} == {sent.uid}
    assert {result.DeviceSerialNumber for result in results} == {bundle.sha256[:16]}


def test_segmentations_come_when_asked_for(running: Running) -> None:
    sent = study("segmented", views=("LCC",))
    files = Service(running.client, "sr,sc,seg").read(sent.files)
    assert "SEG" in {dcmread(BytesIO(file), stop_before_pixels=True).Modality for file in files}


def test_images_at_fault_are_refused_with_the_services_code(service: Service) -> None:
    with pytest.raises(Refused) as refused:
        service.read(blank_study().files)
    assert refused.value.code == "no_breast_found"


def test_a_question_that_the_service_does_not_understand_is_no_fault_of_the_images(
    running: Running,
) -> None:
    """So the study is read once the service has been updated."""
    with pytest.raises(Unavailable) as fault:
        Service(running.client, "sr,unheard_of").read(study("x", views=("LCC",)).files)
    assert (fault.value.code, fault.value.everyone) == ("invalid_request", True)


def test_a_busy_service_is_waited_for(running: Running, service: Service) -> None:
    """One request that never sends its body keeps the service busy until it is given up."""
    slow = socket.create_connection((running.client.base_url.host, running.client.base_url.port))
    slow.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: image/png\r\nContent-Length: 9\r\n\r\n"
    )
    overloaded = 'mammoseq_problems_total{code="overloaded"}'
    answers: list[list[bytes]] = []
    reader = threading.Thread(
        target=lambda: answers.append(service.read(study("busy", views=("LCC",)).files))
    )
    while running.metric("mammoseq_in_flight_requests") == 0:
        time.sleep(0.02)
    reader.start()
    try:
        deadline = time.monotonic() + 60
        while running.metric(overloaded) == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.metric(overloaded) > 0
        assert answers == []
    finally:
        slow.close()
    reader.join(60)
    assert len(answers) == 1


def test_a_service_that_does_not_answer_is_unavailable_to_everyone() -> None:
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", trust_env=False) as client,
        pytest.raises(Unavailable, match=r"^service: unreachable$") as fault,
    ):
        Service(client, "sr,sc").model()
    assert fault.value.everyone
