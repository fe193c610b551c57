"""What the service tells of itself: its totals, and what its model's bundle says of the model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.application import VERSION
from app.bundle import FIGURES, MANIFEST, MODEL_CARD, Bundle, load_bundle, seal
from tests.api.test_load import connected, head, settled
from tests.api.test_refusals import IMAGE, refused
from tests.pictures import breast, dicom
from tests.serving import Service, serving


def state_of(service: Service) -> dict[str, Any]:
    body: dict[str, Any] = service.get("/state").json()
    return body


def test_state_says_what_is_running(server: Service, bundle: Bundle) -> None:
    state = state_of(server)
    assert state["version"] == VERSION
    assert state["model"] == f"{bundle.manifest.name}/{bundle.manifest.version}"
    assert state["provider"].endswith("ExecutionProvider")
    assert (state["processes"], state["in_flight"]) == (1, 0)
    assert state["workers"] >= 1


def test_uptime_goes_on_as_the_clock_does(server: Service) -> None:
    begin = time.monotonic()
    first = state_of(server)["uptime_seconds"]
    time.sleep(0.2)
    second, passed = state_of(server)["uptime_seconds"], time.monotonic() - begin
    assert 0 < first < 24 * 3600
    assert 0.1 < second - first < passed + 1


@pytest.mark.parametrize(
    ("path", "content", "requests", "images"),
    [
        ("/predict", IMAGE, 1, 1),
        ("/predict", b"hello", 1, 0),
        ("/predict/series", dicom(breast()), 1, 1),
        ("/no/such/address", b"", 0, 0),
    ],
)
def test_totals_move_with_a_request(
    server: Service, path: str, content: bytes, requests: int, images: int
) -> None:
    before = state_of(server)
    server.post(path, content=content)
    after = state_of(server)
    assert after["requests"] - before["requests"] == requests
    assert after["images"] - before["images"] == images
    assert (after["busy_seconds"] > before["busy_seconds"]) == (images > 0)


def test_image_that_is_remembered_counts_again(server: Service) -> None:
    image = dicom(breast(seed=5))
    server.post("/predict/series", content=image)
    before = state_of(server)["images"]
    server.post("/predict/series", content=image)
    assert state_of(server)["images"] == before + 1


def test_request_under_way_is_in_flight(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(bundle_folder, tmp_path) as service, connected(service) as connection:
        connection.sendall(head(len(IMAGE)))
        assert settled(service, "mammoseq_in_flight_requests", 1)
        assert state_of(service)["in_flight"] == 1


def test_totals_are_of_all_processes(bundle_folder: Path, tmp_path: Path) -> None:
    count = 8
    with (
        serving(bundle_folder, tmp_path, processes=2, workers=1) as service,
        ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(httpx.Client(base_url=service.client.base_url, timeout=60))
            for _ in range(count)
        ]
        for client in clients:
            assert client.post("/predict", content=IMAGE).status_code == 200
        states = [client.get("/state").json() for client in clients]
        for state in states:
            assert (state["processes"], state["workers"]) == (2, 1)
            assert (state["requests"], state["images"]) == (count, count)
            assert state["busy_seconds"] == states[0]["busy_seconds"] > 0
            assert 0 <= state["uptime_seconds"] - states[0]["uptime_seconds"] < 10


# the model


@pytest.fixture(scope="module")
def copied(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Path]]:
    """A service of a copy of the shipped bundle, and where the copy lies."""
    store = tmp_path_factory.mktemp("store")
    folder = store / bundle_folder.parent.name / bundle_folder.name
    shutil.copytree(bundle_folder, folder)
    with serving(folder, store) as service:
        yield service, folder


def address(bundle: Bundle, name: str) -> str:
    return f"/v1/models/{bundle.manifest.name}/{bundle.manifest.version}/{name}"


def test_card_is_that_of_the_bundle(server: Service, bundle: Bundle, bundle_folder: Path) -> None:
    answer = server.get(address(bundle, "card"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.content == (bundle_folder / MODEL_CARD).read_bytes()


def test_figures_are_those_of_the_bundle(
    server: Service, bundle: Bundle, bundle_folder: Path
) -> None:
    answer = server.get(address(bundle, "figures"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == (bundle_folder / FIGURES).read_bytes()


def test_what_was_verified_is_served_whatever_becomes_of_the_file(
    copied: tuple[Service, Path], bundle: Bundle, bundle_folder: Path
) -> None:
    service, folder = copied
    (folder / FIGURES).write_text('{"roc": "changed"}')
    answer = service.get(address(bundle, "figures"))
    assert answer.content == (bundle_folder / FIGURES).read_bytes()


def test_bundle_without_figures_has_none(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / bundle.manifest.name / bundle.manifest.version
    shutil.copytree(bundle.folder, folder, ignore=shutil.ignore_patterns(FIGURES))
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]
    bare = seal(folder, manifest)
    assert load_bundle(folder).figures is None
    with serving(folder, tmp_path) as service:
        refused(service.get(address(bare, "figures")), "not_found")


@pytest.mark.parametrize("name", ["card", "figures"])
@pytest.mark.parametrize(
    "other",
    [
        "/v1/models/other-model/{version}/{name}",
        "/v1/models/{model}/9.9.9/{name}",
        "/v1/models/{model}/..%2f{version}/{name}",
        "/v1/models/{model}/{version}/..%2fencoder.onnx",
    ],
)
def test_only_the_model_in_service_is_told_of(
    server: Service, bundle: Bundle, name: str, other: str
) -> None:
    manifest = bundle.manifest
    path = other.format(model=manifest.name, version=manifest.version, name=name)
    refused(server.get(path), "not_found")
