"""Requests that cannot be answered: the right code, in the right form, and no failure."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.api.admit import IMAGE_ROUTES
from app.bundle import Bundle
from app.problems import PROBLEMS
from tests.pictures import breast, dicom, png, png_claiming, real_dicom
from tests.serving import Service, serving

IMAGE = png(breast(300, 200))
MAX_BODY = 400_000
MAX_PIXELS = 70_000


def refused(response: httpx.Response, code: str) -> dict[str, Any]:
    """Check the whole form of a problem, RFC 9457, against the table."""
    problem = PROBLEMS[code]
    body: dict[str, Any] = response.json()
    assert body.get("code") == code, body
    assert response.status_code == problem.status
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {
        "type", "title", "status", "code", "detail", "advice", "request_id", "error",
    }  # fmt: skip
    assert body["type"] == f"urn:mammoseq:problem:{code}"
    assert body["title"] == problem.title
    assert body["status"] == problem.status
    assert body["advice"] == problem.advice
    assert body["detail"]
    assert body["error"] == f"{code}: {body['detail']}"
    assert body["request_id"] == response.headers["x-request-id"]
    return body


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "no_file"),
        (b"hello", "unsupported_format"),
        (IMAGE[:500], "broken_image"),
        (real_dicom("truncated"), "broken_image"),
        (png(np.zeros((300, 200), np.uint8)), "no_breast_found"),
        (png_claiming(60_000, 60_000), "too_many_pixels"),
        (dicom(breast(), NumberOfFrames=3), "several_frames"),
        (dicom(breast(), PixelData=None), "no_pixels"),
        (dicom(breast(), PhotometricInterpretation="YBR_FULL"), "unsupported_photometric"),
        (dicom(breast(), BitsStored=0), "unsupported_depth"),
        (dicom(breast(), PresentationIntentType="FOR PROCESSING"), "for_processing"),
        (dicom(breast(), Modality="US"), "other_modality"),
        (dicom(breast(), Manufacturer="Mammoseq"), "own_result"),
    ],
)
def test_image_that_cannot_be_read_is_refused(server: Service, content: bytes, code: str) -> None:
    refused(server.post("/predict", content=content), code)
    form = {"file": ("x", content)}
    refused(server.post("/predict", files=form), "empty_file" if code == "no_file" else code)


@pytest.mark.parametrize(
    ("query", "code", "told"),
    [
        ({"operating_point": "else"}, "unknown_operating_point", "balanced"),
        ({"target": "else"}, "unknown_class", "malignant"),
        ({"model": "else"}, "unknown_model", "mammoseq-rsna/"),
        ({"overlay": "gif"}, "invalid_request", "overlay"),
        ({"overlay_long_side": "63"}, "invalid_request", "overlay_long_side"),
        ({"overlay_long_side": "8193"}, "invalid_request", "overlay_long_side"),
        ({"overlay_long_side": "big"}, "invalid_request", "overlay_long_side"),
        ({"map": "perhaps"}, "invalid_request", "map"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/series"])
def test_option_that_is_none_is_refused_and_the_detail_says_which(
    server: Service, path: str, query: dict[str, str], code: str, told: str
) -> None:
    response = server.post(path, files={"file": ("x", IMAGE)}, params=query)
    assert told in refused(response, code)["detail"]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_several_images_are_sent_to_the_series(server: Service, count: int) -> None:
    files = [("files", (f"{i}.png", IMAGE)) for i in range(count)]
    refused(server.post("/predict", files=files), "several_files")


def test_form_without_a_file_is_refused(server: Service) -> None:
    refused(server.post("/predict", files={"note": (None, "hello")}), "no_file")


@pytest.mark.parametrize("path", ["/predict", "/predict/series"])
@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"hello"),
        ("multipart/form-data; boundary=", b"hello"),
        ("multipart/form-data; boundary=x", b"hello"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n'),
        ("multipart/form-data; boundary=\xe9", b"--\xe9\r\n"),
    ],
)
def test_multipart_that_is_none_is_refused(
    server: Service, path: str, content_type: str, content: bytes
) -> None:
    headers = {"Content-Type": content_type.encode("latin-1")}
    response = server.post(path, content=content, headers=headers)
    assert response.json()["code"] in ("invalid_multipart", "no_file"), response.text
    refused(response, response.json()["code"])


def test_too_many_form_fields_are_refused(server: Service) -> None:
    fields = {f"field{i}": (None, "x") for i in range(40)}
    refused(server.post("/predict", files=fields), "invalid_multipart")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/no/such/address", "not_found"),
        ("POST", "/", "method_not_allowed"),
        ("GET", "/predict", "method_not_allowed"),
        ("PUT", "/predict/series", "method_not_allowed"),
        ("DELETE", "/metrics", "method_not_allowed"),
    ],
)
def test_wrong_address_or_method_is_a_problem(
    server: Service, method: str, path: str, code: str
) -> None:
    response = server.client.request(method, path)
    refused(response, code)
    if code == "method_not_allowed":  # RFC 9110 15.5.6
        assert "Allow" in response.headers


@pytest.mark.parametrize("route", IMAGE_ROUTES)
@pytest.mark.parametrize("end", ["%0A", "%0D", "%00", "%0A%0A", "%20", "%3F"])
def test_address_with_a_character_too_many_does_not_pass_by_what_lets_images_in(
    server: Service, bundle: Bundle, route: str, end: str
) -> None:
    manifest = bundle.manifest
    path = route.format(name=manifest.name, version=manifest.version)
    answer = server.post(path + end, content=b"hello", headers={"Content-Type": "text/plain"})
    assert answer.json()["code"] in ("not_found", "unsupported_format", "invalid_json")


def test_addresses_that_an_advice_names_exist(server: Service) -> None:
    named = {
        address
        for problem in PROBLEMS.values()
        for address in re.findall(r"(?<![\w.])(/[a-z][a-z0-9/]*(?:\.[a-z]+)?)", problem.advice)
    }
    for address in named:
        assert server.get(address).status_code in (200, 405), address


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-1.2_3", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("with space", False),
        ("", False),
        ("<script>", False),
        ("a\tb", False),
    ],
)
def test_request_id_is_kept_if_plain_and_else_replaced(
    server: Service, sent: str, kept: bool
) -> None:
    headers = {"X-Request-ID": sent}
    answers = [
        server.get("/healthz/live", headers=headers),
        server.post("/predict", content=b"hello", headers=headers),
        server.post("/predict", content=IMAGE, headers=headers),
    ]
    for response in answers:
        found = response.headers["x-request-id"]
        assert (found == sent) == kept
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", found)
    assert answers[2].json()["request_id"] == answers[2].headers["x-request-id"]


def test_two_requests_without_an_id_get_different_ones(server: Service) -> None:
    one, other = (server.get("/healthz/live").headers["x-request-id"] for _ in range(2))
    assert one != other


# limits


@pytest.fixture(scope="module")
def limited(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with small limits."""
    with serving(
        bundle_folder, tmp_path_factory.mktemp("limited"),
        max_body_bytes=MAX_BODY, max_pixels=MAX_PIXELS, max_exams=2, max_images=3,
    ) as service:  # fmt: skip
        yield service


def chunks(total: int, size: int = 65_536) -> Iterator[bytes]:
    """A body of unknown length for the receiver: sent with chunked transfer coding."""
    for start in range(0, total, size):
        yield b"x" * min(size, total - start)


@pytest.mark.parametrize("path", ["/predict", "/predict/series"])
def test_body_too_large_by_its_header_is_refused(limited: Service, path: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if "series" in path else {}
    refused(limited.post(path, content=b"x" * (MAX_BODY + 1), headers=headers), "body_too_large")


def test_body_too_large_by_its_header_is_refused_before_it_is_sent(limited: Service) -> None:
    address = (limited.client.base_url.host, limited.client.base_url.port or 80)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n"
        )
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", ["/predict", "/predict/series"])
def test_body_too_large_in_chunks_is_refused(limited: Service, path: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if "series" in path else {}
    body = chunks(MAX_BODY + 1)
    if "series" in path:
        start = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        body = iter([start, *body])
    response = limited.post(path, content=body, headers=headers)
    assert "content-length" not in response.request.headers
    refused(response, "body_too_large")


def test_much_too_large_body_is_refused_without_breaking_the_connection(limited: Service) -> None:
    refused(limited.post("/predict", content=chunks(50 * MAX_BODY)), "body_too_large")
    refused(limited.post("/predict", content=b"x" * (50 * MAX_BODY)), "body_too_large")
    assert limited.post("/predict", content=IMAGE).status_code == 200


def test_body_of_just_the_limit_is_read(limited: Service) -> None:
    refused(limited.post("/predict", content=b"x" * MAX_BODY), "unsupported_format")
    refused(limited.post("/predict", content=chunks(MAX_BODY)), "unsupported_format")


@pytest.mark.parametrize(
    "data", [png(breast(351, 200)), dicom(breast(351, 200)), png_claiming(9999, 9999)]
)
def test_image_of_too_many_pixels_is_refused(limited: Service, data: bytes) -> None:
    refused(limited.post("/predict", content=data), "too_many_pixels")


def series(count: int, same_day: bool = False) -> dict[str, Any]:
    files = [("files", (f"f{i}", png(breast(260, 180, seed=i)))) for i in range(count)]
    names = [f"f{i}" for i in range(count)]
    exams = [{"date": f"{2020 + i}-01-01", "files": [name]} for i, name in enumerate(names)]
    if same_day:
        exams = [{"date": "2020-01-01", "files": names}]
    return {"files": files, "data": {"series": json.dumps({"exams": exams})}}


def test_series_of_too_many_exams_is_refused(limited: Service) -> None:
    assert limited.post("/predict/series", **series(2)).status_code == 200
    refused(limited.post("/predict/series", **series(3)), "too_many_exams")


@pytest.mark.parametrize("count", [4, 5, 20])
def test_series_of_too_many_images_is_refused(limited: Service, count: int) -> None:
    assert limited.post("/predict/series", **series(3, same_day=True)).status_code == 200
    refused(limited.post("/predict/series", **series(count, same_day=True)), "too_many_images")


@pytest.fixture
def single(bundle_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service that takes one request at a time."""
    with serving(bundle_folder, tmp_path, max_requests=1, workers=1) as service:
        yield service


def unfinished_request(service: Service) -> socket.socket:
    """A request under way: its header and a part of its body are sent, the rest is not."""
    address = (service.client.base_url.host, service.client.base_url.port or 80)
    connection = socket.create_connection(address, timeout=30)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
    connection.sendall(head.encode() + IMAGE[:100])
    deadline = time.monotonic() + 60
    while service.metric("mammoseq_in_flight_requests") < 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return connection


def test_request_beyond_those_in_flight_is_told_to_come_again(single: Service) -> None:
    with unfinished_request(single) as connection:
        response = single.post("/predict", content=IMAGE)
        refused(response, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        refused(single.post("/predict/series", **series(2)), "overloaded")
        assert single.get("/healthz/ready").status_code == 200
        connection.sendall(IMAGE[100:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert single.post("/predict", content=IMAGE).status_code == 200


def test_burst_is_answered_or_refused_and_nothing_else(single: Service) -> None:
    barrier = threading.Barrier(12)

    def post(_: int) -> int:
        with httpx.Client(base_url=single.client.base_url, timeout=60) as client:
            barrier.wait()
            return client.post("/predict", content=IMAGE).status_code

    with ThreadPoolExecutor(12) as pool:
        found = set(pool.map(post, range(12)))
    assert found == {200, 429}
    assert single.metric("mammoseq_in_flight_requests") == 0


def test_place_of_a_client_that_goes_away_is_free_again(single: Service) -> None:
    unfinished_request(single).close()
    deadline = time.monotonic() + 60
    while single.metric("mammoseq_in_flight_requests") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert single.post("/predict", content=IMAGE).status_code == 200
    assert single.metric('mammoseq_problems_total{code="internal_error"}') == 0


def test_what_the_operator_accepts_is_scored_with_a_warning(
    bundle_folder: Path, tmp_path: Path
) -> None:
    processing = dicom(breast(), PresentationIntentType="FOR PROCESSING")
    with serving(bundle_folder, tmp_path, accept="for_processing, spot_view") as service:
        answer = service.post("/predict", content=processing)
        assert answer.status_code == 200
        assert "for_processing" in [warning["code"] for warning in answer.json()["warnings"]]
        refused(service.post("/predict", content=dicom(breast(), Modality="US")), "other_modality")
