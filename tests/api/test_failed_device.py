"""A device that fails while the service runs: 503 for requests and probes, until a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.api.application import create_application
from app.bundle import Bundle
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.settings import Settings
from tests.inference.test_device import encoder_that_fails_above, session_of
from tests.pictures import breast, png
from tests.serving import serving_here

IMAGE = png(breast())


@pytest.fixture
def broken(bundle: Bundle) -> Iterator[httpx.Client]:
    """The application with the encoder of a real session that can run nothing in its place."""
    settings = Settings()
    pipeline = Pipeline(bundle, settings)
    with serving_here(create_application(Models(pipeline), settings)) as client:
        assert client.post("/predict", content=IMAGE).status_code == 200
        assert client.get("/healthz/ready").status_code == 200
        pipeline.sessions._encoder = session_of(encoder_that_fails_above(-1))
        yield client


def test_failed_device_is_answered_with_503_by_requests_and_probes(broken: httpx.Client) -> None:
    for _ in range(2):
        answer = broken.post("/predict", content=IMAGE)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    for probe in ("/healthz/ready", "/healthz/live"):
        answer = broken.get(probe)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")


def test_failed_device_leaves_metrics_and_description_in_place(broken: httpx.Client) -> None:
    broken.post("/predict", content=IMAGE)
    told = broken.get("/metrics").text.splitlines()
    assert "mammoseq_failed_devices 1.0" in told
    assert 'mammoseq_problems_total{code="not_ready"} 0.0' not in told
    assert broken.get("/v1/models").status_code == 200


def test_other_images_of_a_series_that_failed_are_left(bundle: Bundle) -> None:
    settings = Settings(workers=1)
    pipeline = Pipeline(bundle, settings)
    tried: list[Any] = []

    def fails(images: Any) -> Any:
        tried.append(images)
        time.sleep(0.05)
        raise ValueError

    with serving_here(create_application(Models(pipeline), settings)) as client:
        pipeline._encode = fails  # type: ignore[method-assign]
        files = [("files", (f"{n}.png", IMAGE)) for n in range(16)]
        answer = client.post("/predict/series", files=files)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert len(tried) < 8  # the server finishes what is left before it ends
