"""The load generator against a real server, and what the overload benchmark makes of outcomes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request as Received
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.imaging.decode import decode
from benchmarks import openloop
from benchmarks.client import LoadError
from benchmarks.inputs import synthetic_files
from benchmarks.openloop import NO_ANSWER, Load, Offered, Outcome, Request
from benchmarks.overload import Step, kind_of
from tests.serving import Service, serving_here

JPEG = synthetic_files(full_size=False)["jpeg-640"]


def body_of(request: Request, mark: bytes) -> bytes:
    return b"".join(request.body(mark))


def statuses(offered: Offered) -> dict[int, int]:
    found: dict[int, int] = {}
    for outcome in offered.outcomes:
        found[outcome.status] = found.get(outcome.status, 0) + 1
    return found


def test_marked_image_is_another_file_with_the_same_pixels() -> None:
    request = openloop.single("/predict", JPEG, {})
    first, second = body_of(request, b"000000000001"), body_of(request, b"000000000002")
    assert first != second
    np.testing.assert_array_equal(decode(first, 10**6)[0], decode(JPEG, 10**6)[0])
    assert f"Content-Length: {len(first)}\r\n".encode() in request.head


def test_service_answers_singles_and_series_of_the_generator(server: Service) -> None:
    port = server.client.base_url.port or 80
    for request in (
        openloop.single("/predict", JPEG, {}),
        openloop.single("/predict", JPEG, {"X-Deadline-Ms": "60000"}, expect=True),
        openloop.series("/predict/series", JPEG, 3, {}),
    ):
        assert openloop.saturate(port, request, concurrency=2, seconds=0.05) > 0


class Application:
    """Answers ``status``, at once or after the body, and keeps the bodies."""

    def __init__(self, status: int, *, reads: bool) -> None:
        self.bodies: list[bytes] = []
        self._status = status
        self._reads = reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._reads:
            self.bodies.append(await Received(scope, receive).body())
        await PlainTextResponse("", self._status)(scope, receive, send)


def offered_to(
    application: Callable[[Scope, Receive, Send], Awaitable[None]], request: Request
) -> Offered:
    with serving_here(application) as client:
        port: Any = client.base_url.port
        loads = {"single": Load(request, 200.0)}
        return openloop.offer(port, os.getpid(), loads, seconds=0.5)


@pytest.mark.parametrize("expect", [False, True])
def test_every_request_arrives_whole_with_a_mark_of_its_own(expect: bool) -> None:
    application = Application(200, reads=True)
    offered = offered_to(application, openloop.single("/predict", JPEG, {}, expect=expect))
    assert statuses(offered) == {200: len(application.bodies)}
    assert len(application.bodies) > 30, "exponential gaps, 200 a second for half a second"
    assert len(set(application.bodies)) == len(application.bodies)
    assert {len(body) for body in application.bodies} == {len(JPEG) + 17}
    assert all(outcome.due <= outcome.sent <= outcome.done for outcome in offered.outcomes)


@pytest.mark.parametrize("expect", [False, True])
def test_refusal_before_the_body_is_an_answer(expect: bool) -> None:
    offered = offered_to(
        Application(429, reads=False), openloop.single("/predict", JPEG, {}, expect=expect)
    )
    assert set(statuses(offered)) == {429}


def test_connection_that_the_service_closes_is_no_answer() -> None:
    def hang_up(server: socket.socket) -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=[server], daemon=True).start()
        loads = {"single": Load(openloop.single("/predict", JPEG, {}), 200.0)}
        offered = openloop.offer(server.getsockname()[1], os.getpid(), loads, seconds=0.2)
        server.shutdown(socket.SHUT_RDWR)
    assert set(statuses(offered)) == {NO_ANSWER}
    assert all(outcome.done for outcome in offered.outcomes)


def test_closed_loop_accepts_nothing_but_success() -> None:
    with serving_here(Application(429, reads=True)) as client:
        port: Any = client.base_url.port
        request = openloop.single("/predict", JPEG, {})
        with pytest.raises(LoadError, match="429"):
            openloop.saturate(port, request, concurrency=1, seconds=0.05)


def outcome(due: float, milliseconds: float, status: int, kind: str = "single") -> Outcome:
    return Outcome(kind, due, due, due + milliseconds / 1000, status)


def test_only_what_is_answered_in_time_within_the_window_is_goodput() -> None:
    counted = [
        outcome(10.5, 100, 200),
        outcome(11.0, 300, 200),
        outcome(10.1, 1500, 200),  # after its deadline
        outcome(11.0, 5, 429),
        outcome(11.0, 900, 504),
        outcome(11.0, 10, 500),
        Outcome("single", 10.5, 10.5),  # never answered
    ]
    left_out = [
        outcome(9.0, 50, 200),  # in the warm-up
        outcome(11.9, 200, 200),  # answered when arrivals have ended
        outcome(11.0, 100, 200, "series of 8"),
    ]
    offered = Offered(8.0, 12.0, counted + left_out, 0.0, 0.0)
    kind = kind_of(offered, "single", deadline_ms=1000.0, warm_up_seconds=2.0)
    assert kind.offered_per_second == 8 / 2
    assert kind.goodput_per_second == 2 / 2
    assert kind.refused_share == pytest.approx(1 / 7)
    assert kind.late_share == pytest.approx(2 / 7)
    assert kind.failed == 2
    assert kind.admitted_p50_ms == pytest.approx(300)
    assert kind.refused_p99_ms == pytest.approx(5)


def test_work_is_goodput_as_a_share_of_what_can_be_done_of_that_kind() -> None:
    outcomes = [outcome(0.5, 100, 200), outcome(0.5, 100, 200), outcome(0.5, 100, 200, "series")]
    offered = Offered(0.0, 1.0, outcomes, 0.0, 0.0)
    kinds = {
        name: kind_of(offered, name, deadline_ms=1000.0, warm_up_seconds=0.0)
        for name in ("single", "series")
    }
    step = Step("mix", 1.0, kinds, 0.0, 0.0, 0.0)
    assert step.work({"single": 4.0, "series": 2.0}) == {"single": 0.5, "series": 0.5}


def test_kind_without_answers_has_no_times() -> None:
    kind = kind_of(Offered(0.0, 4.0, [], 0.0, 0.0), "single", deadline_ms=1000.0)
    assert (kind.goodput_per_second, kind.refused_share, kind.failed) == (0, 0, 0)
    assert np.isnan(kind.admitted_p99_ms)
