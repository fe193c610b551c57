"""A service with more to do than it can: who waits, who is refused, and what is dropped."""

from __future__ import annotations

import asyncio
import json
import resource
import select
import socket
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.types import Receive, Scope, Send

from app.api.bodies import WHOLE_BODY, LargeBodyProtocol
from tests.api.test_refusals import IMAGE, refused
from tests.pictures import breast, dicom, png, sixteen_bit
from tests.serving import Service, serving, serving_here

SHOTS = [png(breast(300, 200, spots=[(150, 40 + n)])) for n in range(8)]
PREDICT = staticmethod(lambda path: path == "/predict")
LARGE = png(np.random.default_rng(0).integers(0, 2**16, (600, 400), np.uint16))  # 480 kB of noise


@pytest.fixture
def narrow(bundle_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service with one worker, where nobody may wait for long."""
    with serving(bundle_folder, tmp_path, workers=1, max_queue_seconds=0.2) as service:
        yield service


def connected(service: Service) -> socket.socket:
    address = (service.client.base_url.host, service.client.base_url.port or 80)
    return socket.create_connection(address, timeout=30)


def head(length: int, *lines: str, path: str = "/predict") -> bytes:
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *lines, "", ""]
    ).encode()


def answer_on(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON of the next answer on a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(1 << 16)
        assert received, "the connection was closed without an answer"
        data += received
    lines, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(1 << 16)
    return int(lines.split()[1]), json.loads(body)


def posted(service: Service, count: int, **options: Any) -> list[httpx.Response]:
    """Answers to so many requests at a time."""

    def post(_: int) -> httpx.Response:
        with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
            return client.post("/predict", content=IMAGE, **options)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(post, range(count)))


def settled(service: Service, sample: str, value: float) -> bool:
    """Whether a metric reaches ``value`` in a while."""
    deadline = time.monotonic() + 60
    while service.metric(sample) != value:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# who is let in


def test_burst_beyond_the_longest_wait_is_partly_refused_with_a_time_to_come_again(
    narrow: Service,
) -> None:
    answers = posted(narrow, 40)
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            refused(answer, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    assert narrow.post("/predict", content=IMAGE).status_code == 200
    assert narrow.metric("mammoseq_waiting_images") == 0


def test_refusal_does_not_wait_for_the_body(bundle_folder: Path, tmp_path: Path) -> None:
    with (
        serving(bundle_folder, tmp_path, max_requests=1) as service,
        connected(service) as first,
        connected(service) as second,
    ):
        first.sendall(head(len(IMAGE)))
        assert settled(service, "mammoseq_in_flight_requests", 1)
        second.sendall(head(10_000_000))
        status, problem = answer_on(second)
        assert (status, problem["code"]) == (429, "overloaded")
        first.sendall(IMAGE)
        assert answer_on(first)[0] == 200


def test_bodies_in_flight_are_limited_in_bytes(bundle_folder: Path, tmp_path: Path) -> None:
    with (
        serving(bundle_folder, tmp_path, max_bytes_in_flight=len(IMAGE) + 10) as service,
        connected(service) as first,
    ):
        first.sendall(head(len(IMAGE)))
        assert settled(service, "mammoseq_in_flight_requests", 1)
        refused(service.post("/predict", content=IMAGE), "overloaded")
        first.sendall(IMAGE)
        assert answer_on(first)[0] == 200
        assert service.post("/predict", content=IMAGE).status_code == 200


def test_bodies_in_chunks_are_limited_in_bytes_too(bundle_folder: Path, tmp_path: Path) -> None:
    chunked = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        serving(bundle_folder, tmp_path, max_bytes_in_flight=100_000) as service,
        connected(service) as first,
        connected(service) as second,
    ):
        for connection in (first, second):
            connection.sendall(chunked)
        assert settled(service, "mammoseq_in_flight_requests", 2)
        for connection in (first, second):
            connection.sendall(b"f000\r\n" + bytes(0xF000) + b"\r\n")  # 61 kB
        refused_one = select.select([first, second], [], [], 30)[0][0]
        status, problem = answer_on(refused_one)
        assert (status, problem["code"]) == (429, "overloaded")


def test_archives_count_with_what_they_unpack_to(bundle_folder: Path, tmp_path: Path) -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.dcm", bytes(2_000_000))
    archive_type = {"content-type": "application/zip"}
    with (
        serving(bundle_folder, tmp_path, max_bytes_in_flight=1_000_000) as service,
        connected(service) as first,
    ):
        first.sendall(head(len(IMAGE)))
        assert settled(service, "mammoseq_in_flight_requests", 1)
        content = packed.getvalue()
        answer = service.post("/predict/series", content=content, headers=archive_type)
        refused(answer, "overloaded")
        first.sendall(IMAGE)
        assert answer_on(first)[0] == 200
        answer = service.post("/predict/series", content=content, headers=archive_type)
        assert answer.json()["code"] == "unsupported_format"


# deadlines


def test_request_that_is_not_answered_in_time_is_told_so(server: Service) -> None:
    with connected(server) as connection:
        connection.sendall(head(len(IMAGE), "X-Deadline-Ms: 150"))  # and never a body
        start = time.monotonic()
        status, problem = answer_on(connection)
        assert (status, problem["code"]) == (504, "deadline_exceeded")
        assert 0.1 < time.monotonic() - start < 10


def test_request_with_time_enough_is_answered(server: Service) -> None:
    response = server.post("/predict", content=IMAGE, headers={"X-Deadline-Ms": "30000"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "stated",
    ["", "0", "-5", "soon", "1.5", "99999999999", "\u0661", pytest.param("1" * 5000, id="digits")],
)
def test_deadline_that_is_none_is_refused(server: Service, stated: str) -> None:
    headers = {"X-Deadline-Ms": stated.encode()}
    refused(server.post("/predict", content=IMAGE, headers=headers), "invalid_request")


def test_work_of_late_requests_is_dropped(bundle_folder: Path, tmp_path: Path) -> None:
    """Thirty bodies come a moment before the deadline: there is time for a few of them."""
    with serving(bundle_folder, tmp_path, workers=1, max_queue_seconds=60) as service:
        before = service.metric("mammoseq_batch_size_images_count")
        connections = [connected(service) for _ in range(30)]
        start = time.monotonic()
        for connection in connections:
            connection.sendall(head(len(IMAGE), "X-Deadline-Ms: 3000"))
        time.sleep(max(0, start + 2.9 - time.monotonic()))
        for connection in connections:
            connection.sendall(IMAGE)
        answers = [answer_on(connection) for connection in connections]
        for connection in connections:
            connection.close()
        assert {status for status, _ in answers} <= {200, 504}
        late = [problem["code"] for status, problem in answers if status == 504]
        assert late == ["deadline_exceeded"] * len(late)
        assert settled(service, "mammoseq_waiting_images", 0)
        assert service.post("/predict", content=IMAGE).status_code == 200
        done = service.metric("mammoseq_batch_size_images_count") - before - 1
        assert done <= 30 - len(late) + 1, "the work of requests that nobody waits for was done"
        assert late


# clients that go


def test_work_of_a_client_that_has_gone_is_dropped(narrow: Service) -> None:
    with connected(narrow) as stays:
        gone = [connected(narrow) for _ in range(3)]
        for connection in gone:
            connection.sendall(head(len(IMAGE)) + IMAGE)
        for connection in gone:
            connection.close()
        assert settled(narrow, "mammoseq_in_flight_requests", 0)
        stays.sendall(head(len(IMAGE)) + IMAGE)
        assert answer_on(stays)[0] == 200
    assert narrow.metric('mammoseq_problems_total{code="internal_error"}') == 0
    assert "Traceback" not in narrow.printed()


# priors that were seen before


def series_of(server: Service, files: list[bytes], **query: Any) -> dict[str, Any]:
    parts = [("files", (f"{n}.png", data)) for n, data in enumerate(files)]
    exams = [{"date": f"20{10 + n}-01-01", "files": [f"{n}.png"]} for n in range(len(files))]
    response = server.post(
        "/predict/series", files=parts, data={"series": json.dumps({"exams": exams})}, params=query
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return {k: v for k, v in answer.items() if k not in ("request_id", "timings_ms")}


HIT = 'mammoseq_remembered_images_total{result="hit"}'


def test_priors_are_encoded_once_and_the_answer_is_the_same(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with serving(bundle_folder, tmp_path) as service:
        series_of(service, SHOTS[:3])
        assert service.metric(HIT) == 0
        encoded = service.metric("mammoseq_batch_size_images_count")
        with_memory = series_of(service, SHOTS[:4])
        assert service.metric(HIT) == 3
        assert service.metric("mammoseq_batch_size_images_count") == encoded + 1
    (tmp_path / "without").mkdir()
    with serving(bundle_folder, tmp_path / "without", remembered_bytes=0) as service:
        assert series_of(service, SHOTS[:4]) == with_memory
        assert series_of(service, SHOTS[:4]) == with_memory
        assert service.metric(HIT) == 0


def test_prior_whose_picture_is_wanted_larger_is_looked_at_again(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with serving(bundle_folder, tmp_path) as service:
        small = series_of(service, SHOTS[:2], overlay_long_side=100)
        large = series_of(service, SHOTS[:2], overlay_long_side=200)
        again = series_of(service, SHOTS[:2], overlay_long_side=100)
    sides = [
        answer["exams"][0]["images"][0]["heatmap"]["overlay"]["height"]
        for answer in (small, large, again)
    ]
    assert sides == [100, 200, 100]
    assert small == again


def test_what_the_gate_let_pass_for_research_is_refused_to_others(
    bundle_folder: Path, tmp_path: Path
) -> None:
    noise = png(np.random.default_rng(1).integers(0, 255, (300, 200), np.uint8))
    with serving(bundle_folder, tmp_path) as service:
        series_of(service, [SHOTS[0], noise], gate="warn")
        files = [("files", ("0.png", SHOTS[0])), ("files", ("1.png", noise))]
        exams = [{"date": f"201{n}-01-01", "files": [f"{n}.png"]} for n in range(2)]
        response = service.post(
            "/predict/series", files=files, data={"series": json.dumps({"exams": exams})}
        )
    assert response.status_code == 422


# images of several requests at a time


def test_images_of_single_requests_and_of_series_meet_in_a_batch(
    bundle_folder: Path, tmp_path: Path
) -> None:
    """As on a GPU, where batches are larger than one by default."""
    with serving(bundle_folder, tmp_path, workers=1, max_batch=8) as service:
        expected = service.post("/predict", content=IMAGE).json()["probabilities"]
        series = series_of(service, SHOTS[:4])
        images = service.metric("mammoseq_batch_size_images_sum")
        batches = service.metric("mammoseq_batch_size_images_count")
        with ThreadPoolExecutor(2) as pool:
            singles = pool.submit(posted, service, 12)
            together = [pool.submit(series_of, service, SHOTS[4:]) for _ in range(3)]
            assert all(len(answer.result()["exams"]) == 4 for answer in together)
        for answer in singles.result():
            assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-5)
        again = series_of(service, SHOTS[:4])
        assert again["calibrated_probability"] == series["calibrated_probability"]
        more_images = service.metric("mammoseq_batch_size_images_sum") - images
        assert more_images > service.metric("mammoseq_batch_size_images_count") - batches


# large bodies


@pytest.mark.parametrize("pieces", [1, 2, 7, 400])
def test_large_body_arrives_whole_in_whatever_pieces(server: Service, pieces: int) -> None:
    expected = server.post("/predict?gate=warn", content=LARGE)
    assert expected.status_code == 200
    request = head(len(LARGE), path="/predict?gate=warn") + LARGE
    step = len(request) // pieces + 1
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), step):
            connection.sendall(request[start : start + step])
            time.sleep(0.001)
        status, answer = answer_on(connection)
    assert status == 200
    assert answer["probabilities"] == expected.json()["probabilities"]


def test_connection_serves_large_and_small_bodies_in_turn(server: Service) -> None:
    """And two requests that were sent without waiting for the first answer."""
    film = dicom(sixteen_bit(breast()))
    assert len(film) > 1 << 17
    small, large = head(len(IMAGE)) + IMAGE, head(len(film)) + film
    with connected(server) as connection:
        for request in (small, large, large, small):
            connection.sendall(request)
            assert answer_on(connection)[0] == 200
        connection.sendall(large + small + large)
        for _ in range(3):
            assert answer_on(connection)[0] == 200


def test_body_in_chunks_without_a_length_is_read(server: Service) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 50_000):
            yield LARGE[start : start + 50_000]

    assert server.post("/predict?gate=warn", content=chunks()).status_code == 200


def test_client_that_goes_in_the_middle_of_a_large_body_leaves_nothing(server: Service) -> None:
    with connected(server) as connection:
        connection.sendall(head(len(LARGE)) + LARGE[:300_000])
        assert settled(server, "mammoseq_in_flight_requests", 1)
    assert settled(server, "mammoseq_in_flight_requests", 0)
    assert "Traceback" not in server.printed()


def resident(service: Service) -> int:
    """Bytes of memory that the service holds."""
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_bodies_that_are_only_announced_or_were_refused_take_no_memory(
    bundle_folder: Path, tmp_path: Path
) -> None:
    announced, part = 200_000_000, bytes(1_000_000)
    with (
        serving(bundle_folder, tmp_path, max_requests=1) as service,
        connected(service) as first,
        connected(service) as second,
        connected(service) as third,
    ):
        before = resident(service)
        first.sendall(head(announced))
        assert settled(service, "mammoseq_in_flight_requests", 1)
        second.sendall(head(announced) + part)
        assert answer_on(second)[0] == 429
        third.sendall(head(announced, path="/metrics") + part)
        assert answer_on(third)[0] == 405
        assert resident(service) - before < announced / 4


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_body_takes_no_memory_while_it_is_asked_who_sends_it(
    bundle_folder: Path, tmp_path: Path
) -> None:
    """Whoever comes with a token, of whatever kind, waits for a provider that does not answer."""
    body = bytes(100_000_000)
    with socket.create_server(("127.0.0.1", 0)) as provider:
        issuer = f"http://127.0.0.1:{provider.getsockname()[1]}"
        settings = {"oidc_issuer": issuer, "oidc_audience": "mammoseq"}
        with serving(bundle_folder, tmp_path, **settings) as service:
            before = resident(service)
            with connected(service) as connection:
                connection.settimeout(2)
                with pytest.raises(TimeoutError):
                    connection.sendall(head(len(body), "Authorization: Bearer a.b.c") + body)
                assert resident(service) - before < len(body) / 4


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_idle_connections_keep_no_body_that_was_answered(
    bundle_folder: Path, tmp_path: Path
) -> None:
    body = bytes(20_000_000)
    with serving(bundle_folder, tmp_path) as service, ExitStack() as stack:
        before = resident(service)
        for _ in range(5):
            connection = stack.enter_context(connected(service))
            connection.sendall(head(len(body)) + body)
            assert answer_on(connection)[0] == 415
        assert resident(service) - before < 2 * len(body)


def test_connection_of_a_refused_large_body_serves_on(server: Service) -> None:
    with connected(server) as connection:
        connection.sendall(head(len(LARGE), "X-Deadline-Ms: 0"))
        assert answer_on(connection)[0] == 422
        connection.sendall(LARGE[:200_000])
        connection.sendall(LARGE[200_000:] + head(len(IMAGE)) + IMAGE)
        assert answer_on(connection)[0] == 200


@pytest.mark.parametrize("length", [1000, 1_000_000])
@pytest.mark.parametrize("begun", [0, 500])
def test_client_that_stops_in_the_middle_of_its_body_does_not_keep_its_place(
    length: int, begun: int
) -> None:
    gone: list[str] = []

    class Impatient(LargeBodyProtocol):
        most_bytes, takes_images, slow_seconds = 10**9, PREDICT, 0.1

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        gone.append(message["type"])

    with (
        serving_here(application, http=Impatient, lifespan="off") as client,
        socket.create_connection((client.base_url.host, client.base_url.port or 80), 30) as stalled,
    ):
        stalled.sendall(head(length) + bytes(begun))
        assert problem_on(stalled) == (408, "slow_body")
        assert stalled.recv(1) == b""
    assert gone == ["http.disconnect"]


def problem_on(connection: socket.socket) -> tuple[int, str]:
    status, problem = answer_on(connection)
    return status, problem["code"]


class Watchful(LargeBodyProtocol):
    most_bytes, takes_images, slow_seconds, slowest = 10**9, PREDICT, 0.5, 1000


async def taken(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how many bytes came."""
    count = 0
    while (message := await receive())["type"] == "http.request":
        count += len(message["body"])
        if not message["more_body"]:
            break
    if message["type"] == "http.request":
        count += len(scope["state"].get(WHOLE_BODY, b""))
        body = json.dumps(count).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def watchful() -> Iterator[tuple[str, int]]:
    with serving_here(taken, http=Watchful, lifespan="off") as client:
        yield client.base_url.host, client.base_url.port or 80


@pytest.mark.parametrize("length", [1000, 1_000_000])
def test_client_that_sends_a_byte_now_and_then_is_cut(
    watchful: tuple[str, int], length: int
) -> None:
    with socket.create_connection(watchful, 30) as slow:
        slow.sendall(head(length))
        while not select.select([slow], [], [], 0.05)[0]:
            slow.sendall(b"x")
        assert problem_on(slow) == (408, "slow_body")


def test_body_that_comes_just_fast_enough_arrives() -> None:
    class Patient(Watchful):
        slow_seconds = 2.0  # a machine that does other things may not send for a while

    with (
        serving_here(taken, http=Patient, lifespan="off") as client,
        socket.create_connection((client.base_url.host, client.base_url.port or 80), 30) as steady,
    ):
        steady.sendall(head(20 * 800))
        for _ in range(20):  # 4000 bytes a second, for twice as long as speed is taken over
            time.sleep(0.2)
            steady.sendall(bytes(800))
        assert answer_on(steady) == (200, 16_000)


@pytest.mark.parametrize("begun", [b"POST /predict HTTP/1.1\r\nHost: ", b"\r\n"])
def test_header_that_does_not_come_to_its_end_is_cut(
    watchful: tuple[str, int], begun: bytes
) -> None:
    for before in (b"", head(3) + b"abc"):  # on a new connection, and on one that was of use
        with socket.create_connection(watchful, 30) as slow:
            if before:
                slow.sendall(before)
                assert answer_on(slow) == (200, 3)
            slow.sendall(begun)
            while not select.select([slow], [], [], 0.05)[0]:
                slow.sendall(b"\r\n" if begun == b"\r\n" else b"x")
            assert problem_on(slow) == (408, "slow_body")


def test_connection_on_which_nothing_comes_is_closed(watchful: tuple[str, int]) -> None:
    with socket.create_connection(watchful, 30) as idle:
        assert idle.recv(1) == b""


@pytest.mark.parametrize("ended", [True, False])
def test_header_that_is_too_large_is_refused_before_it_has_come(
    watchful: tuple[str, int], ended: bool
) -> None:
    lines = [f"X-Filler-{n}: {'x' * 990}" for n in range(66)]
    with socket.create_connection(watchful, 30) as filling:
        request = head(0, *lines)
        filling.sendall(request if ended else request[:-2])
        assert problem_on(filling) == (431, "header_too_large")
        assert filling.recv(1) == b""
    with socket.create_connection(watchful, 30) as modest:
        modest.sendall(head(0, *lines[:60]))
        assert answer_on(modest) == (200, 0)


def test_client_that_waits_long_for_its_answer_is_not_taken_for_one_that_stopped() -> None:
    class Impatient(LargeBodyProtocol):
        most_bytes, takes_images, slow_seconds = 10**9, PREDICT, 0.02

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await asyncio.sleep(0.2)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    with serving_here(application, http=Impatient, lifespan="off") as client:
        for length in (10, 1_000_000):
            assert client.post("/predict", content=bytes(length)).json() == {}
