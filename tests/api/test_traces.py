"""Traces: what a collector is told of requests, and that nobody waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from app.api.application import VERSION
from app.bundle import Bundle
from tests.collector import Received, Told, collecting, rotel
from tests.pictures import breast, dicom, png
from tests.serving import REPOSITORY, Service, environment, free_port, refused_to_start, serving

IMAGE = png(breast())
TRACE = "0af7" * 8
SPAN = "00f067aa0ba902b7"
EXPORTED, FAILED = (
    f'mammoseq_spans_total{{result="{result}"}}' for result in ("exported", "failed")
)
PROCESSES = 2


@pytest.fixture(scope="module")
def traced(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Received]]:
    """The service, with a real collector between it and what shows the spans."""
    folder = tmp_path_factory.mktemp("traced")
    with (
        collecting() as received,
        rotel(received, folder) as url,
        serving(
            bundle_folder,
            folder,
            traces_url=url,
            log_format="json",
            audit_file=folder / "audit.jsonl",
        ) as service,
    ):
        yield service, received


def parent(number: int, *, sampled: bool = True) -> tuple[str, dict[str, str]]:
    """The id of a trace of a caller's, and the header that says so."""
    trace_id = f"{TRACE[:-4]}{number:04x}"
    return trace_id, {"traceparent": f"00-{trace_id}-{SPAN}-{int(sampled):02d}"}


def below(spans: list[Told], span: Told) -> list[str]:
    return [each.name for each in spans if each.parent == span.span_id]


def until(so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# what is told


def test_the_stages_of_an_image_lie_below_its_request_and_that_below_its_caller(
    traced: tuple[Service, Received], bundle: Bundle
) -> None:
    service, received = traced
    trace_id, header = parent(1)
    assert service.post("/predict", content=IMAGE, headers=header).status_code == 200
    spans = received.trace(trace_id, 9)
    request = spans[0]
    assert (request.name, request.kind, request.parent) == ("POST /predict", "server", SPAN)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "mammoseq.model": f"{bundle.manifest.name}/{bundle.manifest.version}",
        "mammoseq.images": 1,
    }
    assert below(spans, request) == [
        "receive", "queue", "decode", "preprocess", "encode", "read", "render", "audit",
    ]  # fmt: skip
    assert not any(span.failed for span in spans)
    for before, after in pairwise(spans[1:]):
        assert request.start <= before.start <= before.end <= after.start <= request.end
    assert request.process.items() >= {
        ("service.name", "mammoseq"),
        ("service.version", VERSION),
    }


def test_the_images_of_a_series_have_their_stages_each_below_its_own(
    traced: tuple[Service, Received],
) -> None:
    service, received = traced
    trace_id, header = parent(2)
    files = [("files", (f"{n}", dicom(breast(seed=90 + n)))) for n in range(3)]
    assert service.post("/predict/series", files=files, headers=header).status_code == 200
    spans = received.trace(trace_id, 22)
    request = spans[0]
    assert sorted(below(spans, request)) == [
        "audit", "image", "image", "image", "queue", "queue", "read", "receive", "render", "unpack",
    ]  # fmt: skip
    images = [span for span in spans if span.name == "image"]
    assert sorted(image.attributes["mammoseq.image"] for image in images) == [0, 1, 2]
    for image in images:
        assert below(spans, image) == ["queue", "decode", "preprocess", "encode"]
    again, header = parent(3)
    assert service.post("/predict/series", files=files, headers=header).status_code == 200
    spans = received.trace(again, 13)
    for image in [span for span in spans if span.name == "image"]:
        assert (below(spans, image), image.attributes["mammoseq.remembered"]) == (["queue"], True)


def test_a_refusal_is_told_by_its_code_where_it_arose(traced: tuple[Service, Received]) -> None:
    service, received = traced
    trace_id, header = parent(4)
    assert service.post("/predict", content=b"no image", headers=header).status_code == 415
    spans = received.trace(trace_id, 5)
    request, decode = spans[0], next(span for span in spans if span.name == "decode")
    assert request.attributes["mammoseq.problem"] == "unsupported_format"
    assert not request.failed, "what the caller did wrong is no fault of the service"
    assert (decode.failed, decode.attributes["error.type"]) == (True, "unsupported_format")
    assert decode.parent == request.span_id


def test_what_is_given_up_ends_too(traced: tuple[Service, Received]) -> None:
    service, received = traced
    trace_id, header = parent(5)
    files = [("files", (f"{n}", dicom(breast(1500, 1200, seed=n)))) for n in range(12)]
    late = service.post("/predict/series", files=files, headers=header | {"X-Deadline-Ms": "60"})
    assert late.status_code in (429, 504)

    def is_whole(told: list[Told]) -> bool:
        """Also what was begun before it was given up ends, some time later."""
        its = [span for span in told if span.trace_id == trace_id]
        orphans = {span.parent for span in its} - {span.span_id for span in its}
        return orphans == {SPAN}

    spans = received.wait_for(is_whole)
    (request,) = [s for s in spans if (s.trace_id, s.kind) == (trace_id, "server")]
    assert request.attributes["mammoseq.problem"] in ("overloaded", "deadline_exceeded")


def test_caller_decides_whether_it_is_traced(traced: tuple[Service, Received]) -> None:
    service, received = traced
    unwanted, header = parent(6, sampled=False)
    service.post("/predict", content=IMAGE, headers=header)
    trace_id, header = parent(7)
    service.get("/v1/models", headers=header)
    (span,) = received.trace(trace_id, 1)
    assert span.name == "GET /v1/models"
    assert unwanted not in {span.trace_id for span in received.spans}


def test_what_machines_watch_is_not_traced(traced: tuple[Service, Received]) -> None:
    service, received = traced
    trace_id, header = parent(8)
    for path in ("/healthz/ready", "/healthz/live", "/metrics", "/v1/models"):
        service.get(path, headers=header)
    assert [span.name for span in received.trace(trace_id, 1)] == ["GET /v1/models"]
    assert not {s.name for s in received.spans} & {"GET /metrics", "GET /healthz/ready"}


def test_the_log_names_the_trace(traced: tuple[Service, Received]) -> None:
    service, received = traced
    service.get("/v1/models", headers={"X-Request-ID": "without-a-caller"})

    def line() -> dict[str, object]:
        told = [ln for ln in service.printed().splitlines() if "without-a-caller" in ln]
        found: dict[str, object] = json.loads(told[-1]) if told else {}
        return found

    until(line)
    (span,) = received.trace(str(line()["trace_id"]), 1)
    assert (span.name, span.parent) == ("GET /v1/models", "")


# who waits for whom


def test_collector_that_is_away_fails_no_request_and_is_told_once(
    bundle_folder: Path, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1/traces"
    with serving(bundle_folder, tmp_path, traces_url=url, log_format="json") as service:
        for _ in range(20):
            assert service.post("/predict", content=IMAGE).status_code == 200
        until(lambda: service.metric(FAILED) > 0)
        assert service.metric(EXPORTED) == 0
        began = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - began < 20
    told = [json.loads(line) for line in service.printed().splitlines()]
    assert sum("opentelemetry" in line.get("logger", "") for line in told) == 1
    assert not any("Traceback" in line["event"] for line in told)


def test_collector_that_hangs_is_waited_for_neither_by_requests_nor_at_the_end(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with collecting() as received:
        received.answer = lambda: time.sleep(300) or 200
        with serving(bundle_folder, tmp_path, traces_url=received.url) as service:
            for _ in range(20):
                assert service.post("/predict", content=IMAGE).status_code == 200
            began = time.monotonic()
            assert service.terminate() == 0
            assert time.monotonic() - began < 30


@pytest.mark.parametrize("processes", [1, PROCESSES])
def test_what_waits_at_the_end_is_sent(bundle_folder: Path, tmp_path: Path, processes: int) -> None:
    with collecting() as received:
        with serving(
            bundle_folder, tmp_path, traces_url=received.url, processes=processes, workers=1
        ) as service:
            until(lambda: service.printed().count("Application startup complete") == processes)
            ids = [parent(100 + number) for number in range(20)]
            for _, header in ids:  # a connection each, which the processes share out
                service.post("/predict", content=IMAGE, headers=header | {"Connection": "close"})
            assert service.terminate() == 0
        spans = received.spans
    requests = [span for span in spans if span.kind == "server"]
    assert {trace_id for trace_id, _ in ids} <= {span.trace_id for span in requests}
    assert len({span.process["service.instance.id"] for span in requests}) == processes
    ids_of = {span.span_id for span in spans}
    assert all(span.parent in ids_of for span in spans if span.kind == "internal")


# without it


def test_unless_wanted_nothing_of_it_is_loaded() -> None:
    script = (
        "import sys, app.api.server, app.bridge.__main__\n"
        "print(*(n for n in sys.modules if n.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter', 'opentelemetry.proto', 'app.tracing.collector'))))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    assert not printed.strip()


@pytest.mark.parametrize("module", ["app", "app.bridge"])
def test_start_is_refused_where_the_extra_is_wanted_and_missing(
    bundle_folder: Path, module: str
) -> None:
    url = "http://127.0.0.1:4318/v1/traces"
    bridge = {
        "MAMMOSEQ_BRIDGE_ARCHIVE_URL": url,
        "MAMMOSEQ_BRIDGE_TRACES_URL": url,
        "MAMMOSEQ_BRIDGE_LOG_FORMAT": "text",
    }
    script = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = None\n"  # as if it were not installed
        f"from {module}.__main__ import main\n"
        "sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment(bundle_folder, port=free_port(), traces_url=url) | bridge,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    name = "MAMMOSEQ_TRACES_URL" if module == "app" else "MAMMOSEQ_BRIDGE_TRACES_URL"
    (line,) = [ln for ln in ended.stderr.splitlines() if ln.startswith("refused to start")]
    assert (ended.returncode, f"{name} needs the extra `tracing`" in line) == (1, True)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("url", ["collector:4318", "http://S3CRET@collector:4318/v1/traces"])
def test_address_that_is_none_or_holds_a_secret_refuses_the_start(
    bundle_folder: Path, url: str
) -> None:
    status, printed = refused_to_start(bundle_folder, traces_url=url)
    assert (status, "refused to start: MAMMOSEQ_TRACES_URL" in printed) == (1, True)
    assert "S3CRET" not in printed
