"""The log: one JSON object a line, from the first line to the last."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.bundle import Bundle
from app.settings import Settings
from tests.pictures import breast, dicom, png
from tests.serving import Service, refused_to_start, serving

IMAGE = png(breast())
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def service(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(
        bundle_folder, tmp_path_factory.mktemp("logs"), log_format="json", max_exams=2
    ) as running:
        yield running


def lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def line_of(service: Service, request_id: str) -> dict[str, Any]:
    printed = printed_with(service, request_id)
    (line,) = [line for line in lines(printed) if line.get("request_id") == request_id]
    return line


def printed_with(service: Service, request_id: str) -> str:
    """What was printed, with the line of a request: it is written once its answer is sent."""
    deadline = time.monotonic() + 60
    while request_id not in service.printed() and time.monotonic() < deadline:
        time.sleep(0.02)
    return service.printed()


def test_every_line_is_an_object_with_time_level_and_event(
    service: Service, bundle: Bundle
) -> None:
    told = lines(service.printed())
    for line in told:
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["level"] in {"info", "warning", "error"}
    by_event = {line["event"]: line for line in told}
    assert by_event["settings"]["settings"].keys() == Settings.model_fields.keys()
    assert by_event["model"]["sha256"] == bundle.sha256
    assert by_event["machine"]["processes"] == 1
    assert by_event["Application startup complete."]["logger"] == "uvicorn.error"


def test_request_is_one_line_with_what_it_was(service: Service, bundle: Bundle) -> None:
    service.post(
        "/predict",
        content=IMAGE,
        headers={"X-Request-ID": "the-one", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
    )
    line = line_of(service, "the-one")
    assert 0 < line.pop("ms") < 60_000
    assert line.pop("time")
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "the-one",
        "trace_id": TRACE,
        "route": "/predict",
        "status": 200,
        "bytes_in": len(IMAGE),
        "images": 1,
        "model": f"{bundle.manifest.name}/{bundle.manifest.version}",
    }


def test_refusal_has_its_code(service: Service) -> None:
    service.post("/predict", content=b"no image", headers={"X-Request-ID": "refused"})
    line = line_of(service, "refused")
    assert (line["status"], line["code"]) == (415, "unsupported_format")
    assert "trace_id" not in line


def test_series_has_its_images_and_a_body_in_pieces_its_bytes(service: Service) -> None:
    files = [("files", (f"{i}", dicom(breast(seed=i)))) for i in range(3)]
    service.post("/predict/series", files=files, headers={"X-Request-ID": "three"})
    assert line_of(service, "three")["images"] == 3
    pieces = iter([IMAGE[:1000], IMAGE[1000:]])
    service.post("/predict", content=pieces, headers={"X-Request-ID": "pieces"})
    assert line_of(service, "pieces")["bytes_in"] == len(IMAGE)


@pytest.mark.parametrize(
    "parent",
    [
        "00-zyxmarker-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01 zyxmarker",
    ],
)
def test_what_is_no_trace_is_not_logged(service: Service, parent: str) -> None:
    request_id = f"odd-{len(parent)}"
    headers = {"X-Request-ID": request_id, "traceparent": parent}
    service.post("/predict", content=b"", headers=headers)
    assert "trace_id" not in line_of(service, request_id)


def test_neither_path_nor_query_is_logged(service: Service) -> None:
    service.get("/zyxmarker?name=zyxmarker", headers={"X-Request-ID": "nowhere"})
    service.post("/predict?view=zyxmarker", content=IMAGE)
    assert line_of(service, "nowhere")["route"] == "other"
    assert "zyxmarker" not in service.printed()


def test_what_machines_watch_is_logged_only_when_it_goes_wrong(service: Service) -> None:
    for path in ("/healthz/ready", "/metrics"):
        service.get(path, headers={"X-Request-ID": "watched"})
        service.post(path, headers={"X-Request-ID": f"wrong-{path.count('/')}"})
    assert "watched" not in service.printed()
    assert line_of(service, "wrong-1")["status"] == 405


def test_text_has_the_same_in_one_line_for_people(server: Service) -> None:
    server.post("/predict", content=IMAGE, headers={"X-Request-ID": "for-people"})
    printed = printed_with(server, "for-people")
    (line,) = [line for line in printed.splitlines() if "for-people" in line]
    assert re.search(
        r"INFO request request_id=for-people route=/predict status=200 ms=\S+ bytes_in=\d+ "
        r"images=1 model=\S+$",
        line,
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_refusal_to_start_is_json_too(tmp_path: Path, bundle_folder: Path, processes: int) -> None:
    elsewhere = tmp_path / bundle_folder.parent.name / bundle_folder.name
    status, printed = refused_to_start(elsewhere, log_format="json", processes=processes)
    assert status == 1
    (refusal,) = [line for line in lines(printed) if line["event"] == "refused to start"]
    assert refusal["level"] == "error"
    assert str(tmp_path) in refusal["why"]


def test_off_a_terminal_it_is_json_unless_set(bundle_folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / bundle_folder.parent.name / bundle_folder.name
    _, printed = refused_to_start(elsewhere, log_format=None)
    assert lines(printed)[-1]["event"] == "refused to start"


@pytest.mark.parametrize("log_format", ["json", None])
def test_a_wrong_setting_is_told_in_json_too(bundle_folder: Path, log_format: str | None) -> None:
    status, printed = refused_to_start(bundle_folder, log_format=log_format, workers=0)
    (refusal,) = lines(printed)
    assert (status, refusal["event"]) == (1, "refused to start")
    assert refusal["why"].startswith("MAMMOSEQ_WORKERS: ")


def test_a_setting_that_could_not_be_printed_refuses_the_start(bundle_folder: Path) -> None:
    status, printed = refused_to_start(bundle_folder, model_key="/\udcff")
    assert status == 1
    assert printed == "refused to start: MAMMOSEQ_MODEL_KEY: Value error, must be UTF-8\n"
