"""Around the predictions: probes, models, metrics, OpenAPI, an end on request, and failures."""

from __future__ import annotations

import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from app.api.application import create_application
from app.bundle import Bundle
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.problems import PROBLEMS
from app.settings import Settings
from tests.pictures import breast, dicom, png
from tests.serving import Service, serving, serving_here

IMAGE = png(breast())


def test_service_is_live_and_ready_and_names_its_model(server: Service, bundle: Bundle) -> None:
    assert server.get("/healthz/live").json() == {"status": "live"}
    ready = server.get("/healthz/ready").json()
    assert ready["status"] == "ready"
    assert ready["model"] == f"{bundle.manifest.name}/{bundle.manifest.version}"
    assert ready["provider"].endswith("ExecutionProvider")


def test_models_are_described(server: Service, bundle: Bundle) -> None:
    body = server.get("/v1/models").json()
    (model,) = body["models"]
    assert "not a medical device" in body["disclaimer"]
    assert (model["name"], model["version"]) == (bundle.manifest.name, bundle.manifest.version)
    assert model["sha256"] == bundle.sha256
    assert tuple(model["classes"]) == bundle.manifest.classes
    assert model["default_operating_point"] == bundle.manifest.default_operating_point
    train = bundle.manifest.data["splits"]["train"]
    assert model["trained_on"] == {key: train[key] for key in ("images", "breasts", "patients")}
    assert model["terms"] == bundle.manifest.data["terms"]
    for point in model["operating_points"]:
        assert 0 <= point["sensitivity"] <= 1
        assert 0 <= point["specificity"] <= 1


def test_settings_and_model_are_printed_at_the_start(server: Service, bundle: Bundle) -> None:
    printed = server.printed()
    assert printed.startswith("settings {")
    for name in Settings.model_fields:
        assert f'"{name}":' in printed
    assert bundle.sha256[:12] in printed
    assert "not a medical device" in printed


# metrics


def test_metrics_are_there_and_name_the_model(server: Service, bundle: Bundle) -> None:
    server.post("/predict", content=IMAGE)
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    (info,) = [line for line in lines if line.startswith("mammoseq_model_info")]
    assert bundle.sha256 in info
    assert info.endswith(" 1.0")


@pytest.mark.parametrize(
    ("sample", "content", "by"),
    [
        ('mammoseq_requests_total{route="/predict",status="200"}', IMAGE, 1),
        ('mammoseq_requests_total{route="/predict",status="415"}', b"hello", 1),
        ('mammoseq_problems_total{code="unsupported_format"}', b"hello", 1),
        ('mammoseq_request_duration_seconds_count{route="/predict"}', b"hello", 1),
        ('mammoseq_stage_duration_seconds_count{stage="decode"}', IMAGE, 1),
        ('mammoseq_stage_duration_seconds_count{stage="preprocess"}', IMAGE, 1),
        ('mammoseq_stage_duration_seconds_count{stage="encode"}', IMAGE, 1),
        ('mammoseq_stage_duration_seconds_count{stage="read"}', IMAGE, 1),
        ('mammoseq_stage_duration_seconds_count{stage="render"}', IMAGE, 1),
        ("mammoseq_batch_size_images_count", IMAGE, 1),
        ("mammoseq_series_length_exams_sum", IMAGE, 1),
        ("mammoseq_calibrated_probability_ratio_count", IMAGE, 1),
        ("mammoseq_calibrated_probability_ratio_count", b"hello", 0),
        ("mammoseq_in_flight_requests", IMAGE, 0),
    ],
)
def test_metric_moves_with_a_request(server: Service, sample: str, content: bytes, by: int) -> None:
    before = server.metric(sample)
    server.post("/predict", content=content)
    assert server.metric(sample) == before + by


def test_metrics_count_addresses_only_by_their_route(server: Service) -> None:
    server.get("/zyxmarker")
    server.get("/healthz/live?name=zyxmarker")
    text = server.get("/metrics").text
    assert "zyxmarker" not in text
    assert 'mammoseq_requests_total{route="other",status="404"}' in text
    assert 'mammoseq_requests_total{route="/healthz/live",status="200"}' in text


# OpenAPI


@pytest.fixture(scope="module")
def openapi(server: Service) -> dict[str, Any]:
    body: dict[str, Any] = server.get("/openapi.json").json()
    return body


def test_openapi_lists_every_problem(openapi: dict[str, Any]) -> None:
    listed = {
        code
        for path in openapi["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        for code in response.get("content", {})
        .get("application/problem+json", {})
        .get("examples", {})
    }
    assert listed == set(PROBLEMS)


def test_openapi_examples_of_problems_have_their_form(openapi: dict[str, Any]) -> None:
    for path in openapi["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/problem+json", {})
                for example in content.get("examples", {}).values():
                    validate(openapi, content["schema"], example["value"])
                    assert str(example["value"]["status"]) == status


def validate(openapi: dict[str, Any], schema: dict[str, Any], instance: Any) -> None:
    """OpenAPI 3.1 schemas are JSON Schema 2020-12."""
    assert openapi["openapi"].startswith("3.1")
    whole = {"components": openapi["components"], **schema}
    jsonschema.Draft202012Validator(whole).validate(instance)


def test_openapi_schemas_are_schemas_and_every_reference_resolves(openapi: dict[str, Any]) -> None:
    for schema in openapi["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                parts = node["$ref"].removeprefix("#/").split("/")
                found: Any = openapi
                for part in parts:
                    found = found[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(openapi)


def test_openapi_describes_the_answers_that_are_given(
    server: Service, openapi: dict[str, Any]
) -> None:
    def answer_schema(path: str, method: str) -> dict[str, Any]:
        operation = openapi["paths"][path][method]
        schema: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]
        return dict(schema["schema"])

    given = {
        ("/predict", "post"): server.post("/predict", content=IMAGE),
        ("/predict/series", "post"): server.post(
            "/predict/series",
            files=[
                ("files", ("a", dicom(breast(), StudyDate="20240101"))),
                ("files", ("b", dicom(breast(seed=1), StudyDate="20230101"))),
            ],
        ),
        ("/v1/models", "get"): server.get("/v1/models"),
        ("/healthz/ready", "get"): server.get("/healthz/ready"),
        ("/state", "get"): server.get("/state"),
    }
    for (path, method), response in given.items():
        assert response.status_code == 200
        validate(openapi, answer_schema(path, method), response.json())
    problem = server.post("/predict", content=b"hello")
    content = openapi["paths"]["/predict"]["post"]["responses"]["415"]["content"]
    validate(openapi, content["application/problem+json"]["schema"], problem.json())


def test_openapi_describes_the_header_of_pixels(server: Service, openapi: dict[str, Any]) -> None:
    answer = openapi["paths"]["/pixels"]["post"]["responses"]["200"]
    assert set(answer["content"]) == {"application/octet-stream"}
    described = answer["headers"]["Mammoseq-Image"]["content"]["application/json"]["schema"]
    header = server.post("/pixels", content=dicom(breast())).headers["mammoseq-image"]
    assert header.isascii()
    validate(openapi, described, json.loads(header))


def test_openapi_tells_what_may_be_sent(openapi: dict[str, Any]) -> None:
    body = openapi["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/dicom", "image/png", "image/tiff"} <= set(body)
    parts = openapi["paths"]["/predict/series"]["post"]["requestBody"]["content"]
    properties = parts["multipart/form-data"]["schema"]["properties"]
    example = properties["series"]["example"]
    validate(openapi, properties["series"]["contentSchema"], example)


# the end


def test_sigterm_finishes_what_is_under_way_and_ends_well(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with serving(bundle_folder, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        address = (service.client.base_url.host, service.client.base_url.port or 80)
        with socket.create_connection(address, timeout=30) as connection:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
            )
            connection.sendall(head.encode() + IMAGE[:1000])
            while service.metric("mammoseq_in_flight_requests") < 1:
                time.sleep(0.02)
            service.client.close()
            ended = pool.submit(service.terminate)
            time.sleep(0.5)
            assert not ended.done(), "it must wait for the request under way"
            connection.sendall(IMAGE[1000:])
            answer = b""
            while part := connection.recv(65_536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"calibrated_probability"' in answer
        assert ended.result() == 0
        assert "Traceback" not in service.printed()


def test_sigterm_of_an_idle_service_ends_it_quickly(bundle_folder: Path, tmp_path: Path) -> None:
    with serving(bundle_folder, tmp_path) as service:
        assert service.post("/predict", content=IMAGE).status_code == 200
        start = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - start < 5


# a failure of our own


@pytest.fixture
def failing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A real service in this process whose pool has been stopped under it: every prediction
    fails with an error that nobody foresaw."""
    monkeypatch.setenv("MAMMOSEQ_HOST", "127.0.0.1")
    settings = Settings()
    pipeline = Pipeline(bundle, settings)
    pipeline.compute.stop()
    with serving_here(create_application(Models(pipeline), settings)) as client:
        yield client


def test_unforeseen_failure_is_a_problem_and_its_message_stays_inside(
    failing: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The message of an exception may quote a file: neither the caller nor the log may see it."""
    with caplog.at_level(logging.INFO):
        response = failing.post("/predict", content=IMAGE, headers={"X-Request-ID": "my-id"})
    assert response.status_code == 500
    body = response.json()
    assert body["code"] == "internal_error"
    assert body["request_id"] == "my-id"
    assert response.headers["x-request-id"] == "my-id"
    assert "have stopped" not in response.text
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "my-id" in logged
    assert "RuntimeError" in logged
    assert "have stopped" not in logged


def test_unforeseen_failure_leaves_nothing_in_flight(failing: httpx.Client) -> None:
    failing.post("/predict", content=IMAGE)
    assert "mammoseq_in_flight_requests 0.0" in failing.get("/metrics").text
