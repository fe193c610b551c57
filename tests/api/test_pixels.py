"""``POST /pixels``: what a viewer shows is what the model's decoder gave, to the bit."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.api.application import create_application
from app.api.bodies import LargeBodyProtocol
from app.bundle import Bundle
from app.imaging.decode import decode
from app.imaging.display import grey_range
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.settings import Settings
from tests.api.test_load import answer_on, connected, head, settled
from tests.api.test_page_files import protected
from tests.api.test_refusals import refused
from tests.pictures import breast, dicom, encoded, png, png_claiming, real_dicom, sixteen_bit
from tests.serving import Service, serving, serving_here

DEEP = sixteen_bit(breast())
TWELVE = DEEP >> np.uint16(4)
GREYS = np.random.default_rng(0).integers(0, 2**16, (300, 200), np.uint16)  # no two alike
IMAGES = {
    "16-bit dicom": dicom(DEEP),
    "12-bit dicom": dicom(TWELVE, BitsStored=12, HighBit=11),
    "8-bit dicom": dicom(breast()),
    "monochrome1": dicom(DEEP, PhotometricInterpretation="MONOCHROME1"),
    "windowed": dicom(TWELVE, BitsStored=12, HighBit=11, WindowCenter=2000, WindowWidth=1500),
    "jpeg 2000": real_dicom("j2k_lossless"),
    "big endian": real_dicom("explicit_bigendian"),
    "jpeg lossless": real_dicom("jpeg_lossless_sv1"),
    "8-bit png": png(breast()),
    "negative": png(255 - breast()),
    "16-bit png": png(GREYS),
    "16-bit tiff": encoded(".tif", DEEP),
    "8-bit jpeg": encoded(".jpg", breast()),
    "colour jpeg": encoded(".jpg", cv2.applyColorMap(breast(), cv2.COLORMAP_JET)),
}
ALL = pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES.keys())
FACTS = {
    "format", "rows", "columns", "bits", "laterality", "view", "view_modifiers", "exam_date",
    "vendor", "presentation", "implant", "spacing_mm",
}  # fmt: skip


def shown(response: httpx.Response) -> tuple[NDArray[Any], dict[str, Any]]:
    """The pixels of an answer as a viewer reads them, and what their header says."""
    assert response.status_code == 200, response.text
    said = json.loads(response.headers["mammoseq-image"])
    dtype = {8: "u1", 16: "<u2"}[said["bits"]]
    return np.frombuffer(response.content, dtype).reshape(said["rows"], said["columns"]), said


def pixels(service: Service, data: bytes, **query: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    return shown(service.post("/pixels", content=data, params=query))


@ALL
def test_pixels_are_those_of_the_decoder(server: Service, data: bytes) -> None:
    words, said = pixels(server, data)
    expected, facts = decode(data, 10**8)
    assert words.dtype == expected.dtype
    assert np.array_equal(words, expected)
    assert (said["rows"], said["columns"]) == expected.shape
    assert [warning["code"] for warning in said["warnings"]] == [code for code, _ in facts.warnings]


@ALL
def test_header_says_of_the_image_what_a_prediction_says(server: Service, data: bytes) -> None:
    _, said = pixels(server, data)
    query = {"gate": "warn", "overlay": "none"}
    image = server.post("/predict", content=data, params=query).json()["image"]
    assert said["inverted"] == image["inverted"]
    assert said["image"] == {name: image[name] for name in FACTS}
    assert set(said) == {
        "rows", "columns", "bits", "image", "low", "high", "inverted", "warnings",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["application/dicom", "text/plain", "application/json", ""])
def test_content_type_does_not_matter(server: Service, kind: str) -> None:
    response = server.post(
        "/pixels", content=IMAGES["16-bit dicom"], headers={"content-type": kind}
    )
    assert np.array_equal(shown(response)[0], DEEP)
    assert response.headers["content-type"] == "application/octet-stream"
    protected(response)
    assert response.headers["cache-control"] == "no-store"


@ALL
@pytest.mark.parametrize("side", [16, 160, 251])
def test_smaller_picture_has_the_depth_and_the_look_of_the_whole(
    server: Service, data: bytes, side: int
) -> None:
    whole, of_whole = pixels(server, data)
    words, said = pixels(server, data, long_side=side)
    assert max(words.shape) == side
    assert words.shape[0] / words.shape[1] == pytest.approx(
        whole.shape[0] / whole.shape[1], rel=1 / min(words.shape)
    )
    assert words.dtype == whole.dtype
    assert said["image"] == of_whole["image"]
    expected = cv2.resize(whole, words.shape[::-1], interpolation=cv2.INTER_AREA)
    range_of_greys = max(1, of_whole["high"] - of_whole["low"])
    assert np.abs(words.astype(float) - expected).mean() < 0.03 * range_of_greys


def test_thumbnail_of_a_large_film_is_exactly_as_large_as_asked_for(server: Service) -> None:
    film = sixteen_bit(breast(2301, 1777))
    for data in (png(film), dicom(film)):
        words, said = pixels(server, data, long_side=160)
        assert words.shape == (160, round(160 * 1777 / 2301))
        assert words.dtype == np.uint16
        assert (said["image"]["rows"], said["image"]["columns"]) == film.shape


@pytest.mark.parametrize("side", [600, 601, 8192])
def test_picture_is_never_enlarged(server: Service, side: int) -> None:
    assert np.array_equal(pixels(server, png(DEEP), long_side=side)[0], DEEP)


@pytest.mark.parametrize("side", ["15", "8193", "0", "-1", "1.5", "large", ""])
def test_side_that_is_none_is_refused(server: Service, side: str) -> None:
    answer = server.post("/pixels", content=png(DEEP), params={"long_side": side})
    assert "long_side" in refused(answer, "invalid_request")["detail"]


def test_grey_range_is_what_pictures_of_the_service_show(server: Service) -> None:
    words, said = pixels(server, IMAGES["12-bit dicom"])
    assert (said["low"], said["high"]) == grey_range(words)
    assert 0 <= said["low"] < said["high"] < 4096


def test_bright_background_is_told_and_left_as_it_is(server: Service) -> None:
    negative = 65535 - DEEP
    words, said = pixels(server, png(negative))
    assert said["inverted"]
    assert np.array_equal(words, negative)
    assert pixels(server, png(negative), long_side=100)[1]["inverted"]
    assert not pixels(server, png(DEEP))[1]["inverted"]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((300, 200), np.uint8), np.full((300, 200), 255, np.uint8),
        np.full((300, 200), 65535, np.uint16), np.zeros((1, 1), np.uint8),
        np.eye(2, dtype=np.uint8), np.eye(5, 3, dtype=np.uint16),
    ],
    ids=["black", "white", "white, 16 bit", "1x1", "2x2", "5x3"],
)  # fmt: skip
@pytest.mark.parametrize("query", [{}, {"long_side": 16}])
def test_image_in_which_no_breast_is_found_is_shown_as_it_is(
    server: Service, picture: NDArray[Any], query: dict[str, int]
) -> None:
    words, said = pixels(server, png(picture), **query)
    assert not said["inverted"]
    assert words.max() == picture.max()


def test_quality_gate_does_not_look(server: Service) -> None:
    assert server.post("/predict", content=png(GREYS)).status_code == 422
    assert np.array_equal(pixels(server, png(GREYS))[0], GREYS)


# what is refused


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "no_file"),
        (b"hello", "unsupported_format"),
        (b"PK\x03\x04 an archive", "unsupported_format"),
        (png(DEEP)[:5000], "broken_image"),
        (real_dicom("truncated"), "broken_image"),
        (png_claiming(60_000, 60_000), "too_many_pixels"),
        (dicom(breast(), NumberOfFrames=3), "several_frames"),
        (dicom(breast(), PixelData=None), "no_pixels"),
        (dicom(breast(), PhotometricInterpretation="YBR_FULL"), "unsupported_photometric"),
        (dicom(breast(), PresentationIntentType="FOR PROCESSING"), "for_processing"),
        (dicom(breast(), Modality="US"), "other_modality"),
        (dicom(breast(), Manufacturer="Mammoseq"), "own_result"),
    ],
)  # fmt: skip
def test_what_a_prediction_refuses_is_refused_with_its_code(
    server: Service, data: bytes, code: str
) -> None:
    for answer in (server.post("/predict", content=data), server.post("/pixels", content=data)):
        refused(answer, code)
        protected(answer)


def test_what_the_operator_accepts_is_shown(bundle_folder: Path, tmp_path: Path) -> None:
    processing = dicom(breast(), PresentationIntentType="FOR PROCESSING")
    with serving(bundle_folder, tmp_path, accept="for_processing") as service:
        said = pixels(service, processing)[1]
    assert "for_processing" in [warning["code"] for warning in said["warnings"]]


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/related", "Multipart/Mixed"])
def test_form_is_refused(server: Service, kind: str) -> None:
    headers = {"content-type": f"{kind}; boundary=x"}
    refused(server.post("/pixels", content=b"--x--", headers=headers), "invalid_request")


def test_several_files_are_refused(server: Service) -> None:
    files = [("files", ("a.png", png(DEEP))), ("files", ("b.png", png(DEEP)))]
    refused(server.post("/pixels", files=files), "invalid_request")


def test_too_large_bodies_and_images_are_refused(bundle_folder: Path, tmp_path: Path) -> None:
    limits = {"max_body_bytes": 100_000, "max_pixels": 70_000}
    with serving(bundle_folder, tmp_path, **limits) as service:
        refused(service.post("/pixels", content=b"x" * 100_001), "body_too_large")
        refused(service.post("/pixels", content=iter([b"x" * 60_000] * 2)), "body_too_large")
        refused(service.post("/pixels", content=png(breast(351, 200))), "too_many_pixels")
        assert service.post("/pixels", content=png(breast(350, 200))).status_code == 200


def test_other_methods_are_not_allowed(server: Service) -> None:
    answer = server.get("/pixels")
    refused(answer, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


# admission


def test_pixels_pass_through_admission(bundle_folder: Path, tmp_path: Path) -> None:
    data = png(DEEP)
    with (
        serving(bundle_folder, tmp_path, max_requests=1) as service,
        connected(service) as first,
    ):
        first.sendall(head(len(data), path="/pixels"))
        assert settled(service, "mammoseq_in_flight_requests", 1)
        answer = service.post("/pixels", content=data)
        refused(answer, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        protected(answer)
        refused(service.post("/predict", content=data), "overloaded")
        first.sendall(data)
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        assert settled(service, "mammoseq_in_flight_requests", 0)
        assert service.post("/pixels", content=data).status_code == 200
        assert service.metric('mammoseq_requests_total{route="/pixels",status="429"}') == 1
        assert service.metric('mammoseq_requests_total{route="/pixels",status="200"}') == 2


def test_request_that_is_late_is_told_so(server: Service) -> None:
    with connected(server) as connection:
        connection.sendall(head(1000, "X-Deadline-Ms: 100", path="/pixels"))  # and never a body
        status, problem = answer_on(connection)
    assert (status, problem["code"]) == (504, "deadline_exceeded")


def test_client_that_goes_leaves_nothing(server: Service) -> None:
    with connected(server) as connection:
        connection.sendall(head(1000, path="/pixels") + b"x")
        assert settled(server, "mammoseq_in_flight_requests", 1)
    assert settled(server, "mammoseq_in_flight_requests", 0)


# answers that are not taken

SIDES = (4000, 2000)
ANSWER_BYTES = 2 * SIDES[0] * SIDES[1]


@cache
def film() -> bytes:
    """A small file of many pixels."""
    return png(np.full(SIDES, 1000, np.uint16))


@dataclass
class Reader:
    """A client that has asked for the pixels of the film and has read the head of the answer."""

    connection: socket.socket
    status: int
    begun: bytes

    def rest(self) -> bytes:
        parts = [self.begun]
        left = ANSWER_BYTES - len(self.begun)
        while left and (part := self.connection.recv(1 << 16)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


@pytest.fixture
def readers() -> Iterator[list[socket.socket]]:
    """Connections that are closed at the end, whatever happens: a server waits for them."""
    opened: list[socket.socket] = []
    yield opened
    for connection in opened:
        connection.close()


def reader(client: httpx.Client, readers: list[socket.socket]) -> Reader:
    connection = socket.socket()
    readers.append(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # the kernel takes little
    connection.settimeout(30)
    connection.connect((client.base_url.host, client.base_url.port or 80))
    connection.sendall(head(len(film()), path="/pixels") + film())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1000)
    lines, _, begun = answer.partition(b"\r\n\r\n")
    return Reader(connection, int(lines.split()[1]), begun)


def test_answers_that_slow_clients_have_not_taken_count(
    bundle_folder: Path, tmp_path: Path, readers: list[socket.socket]
) -> None:
    with serving(bundle_folder, tmp_path, max_bytes_in_flight=2 * ANSWER_BYTES) as service:
        slow = [reader(service.client, readers) for _ in range(2)]
        assert [each.status for each in slow] == [200, 200]
        assert service.metric("mammoseq_in_flight_requests") == 0
        refused(service.post("/pixels", content=film()), "overloaded")
        words = np.frombuffer(slow[0].rest(), "<u2")
        assert words.size == SIDES[0] * SIDES[1]
        assert (words == 1000).all()
        assert service.post("/pixels", content=film()).status_code == 200
        for each in slow:
            each.connection.close()
        assert all(service.post("/pixels", content=film()).status_code == 200 for _ in range(3)), (
            "what a client that has gone did not take counts no more"
        )
        assert "Traceback" not in service.printed()


@pytest.fixture
def impatient(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A service with room for an answer or two, and little patience with those who take none."""
    monkeypatch.setattr(LargeBodyProtocol, "stalled_seconds", 3.0)
    settings = Settings(max_bytes_in_flight=ANSWER_BYTES + 1_000_000)
    application = create_application(Models(Pipeline(bundle, settings)), settings)
    with serving_here(application, http=LargeBodyProtocol) as client:
        yield client


def test_client_that_takes_nothing_is_disconnected(
    impatient: httpx.Client, readers: list[socket.socket]
) -> None:
    stuck = reader(impatient, readers)
    refused(impatient.post("/pixels", content=film()), "overloaded")
    deadline = time.monotonic() + 60
    while impatient.post("/pixels", content=film()).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    try:
        taken = len(stuck.rest())
    except ConnectionError:
        taken = 0
    assert taken < ANSWER_BYTES


def test_client_that_takes_its_answer_slowly_gets_it_all(
    impatient: httpx.Client, readers: list[socket.socket]
) -> None:
    slow = reader(impatient, readers)
    taken, start = len(slow.begun), time.monotonic()
    while taken < ANSWER_BYTES:
        if time.monotonic() - start < 2:  # several times the patience
            time.sleep(0.005)
        taken += len(slow.connection.recv(1 << 15))
    assert taken == ANSWER_BYTES


def test_many_at_once_are_answered_or_refused_and_nothing_else(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with serving(bundle_folder, tmp_path, max_bytes_in_flight=3 * ANSWER_BYTES) as service:

        def ask(_: int) -> int:
            with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
                answer = client.post("/pixels", content=film())
                assert len(answer.content) == ANSWER_BYTES or answer.status_code == 429
                return answer.status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(24))) <= {200, 429}
        assert service.post("/pixels", content=film()).status_code == 200
        assert service.metric('mammoseq_problems_total{code="internal_error"}') == 0
