"""The audit log of the running service: what is in it, what is not, and what becomes of answers
that cannot be recorded."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.keys import hash_of, new_key
from app.access.lockout import MOST_OF_USER
from app.access.passwords import hashed
from app.audit.verify import verified
from tests.api.test_privacy import BIRTH, MARKER, planted
from tests.pictures import breast, dicom, png, real_dicom
from tests.serving import REPOSITORY, Service, refused_to_start, serving

IMAGE = png(breast())
KEY = new_key()
PASSWORD = "correct horse battery"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audited")


@pytest.fixture(scope="module")
def service(bundle_folder: Path, folder: Path) -> Iterator[Service]:
    with serving(
        bundle_folder,
        folder,
        users=f"ana:{hashed(PASSWORD)}",
        api_keys=f"pacs:{hash_of(KEY)}",
        audit_file=folder / "audit.jsonl",
    ) as service:
        yield service


def records(folder: Path) -> list[dict[str, Any]]:
    """All records, of a chain that holds."""
    lines = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    verified(lines)
    return [json.loads(line) for line in lines]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_prediction_is_recorded_with_who_what_and_which_result(
    service: Service, folder: Path
) -> None:
    before = datetime.now(UTC)
    answer = service.post("/predict", content=IMAGE, headers=BEARER | {"X-Request-ID": "r1"}).json()
    record = records(folder)[-1]
    assert before <= datetime.fromisoformat(record.pop("at")) <= datetime.now(UTC)
    assert len(record.pop("previous")) == 64
    model = {key: answer["model"][key] for key in ("name", "version", "sha256")}
    point = answer["prediction"]["operating_point"]
    assert record == {
        "audit": 1,
        "event": "prediction",
        "who": {"name": "pacs", "kind": "key"},
        "address": "127.0.0.1",
        "request_id": "r1",
        "route": "/predict",
        "status": 200,
        "problem": None,
        "model": model,
        "images": [sha256(IMAGE)],
        "operating_point": {"name": point["name"], "threshold": point["threshold"]},
        "breasts": [
            {
                "laterality": None,
                "class": answer["prediction"]["class"],
                "calibrated_probability": answer["calibrated_probability"],
            }
        ],
    }
    start = records(folder)[1]
    assert (start["event"], start["model"]) == ("start", model)


def test_a_study_is_recorded_with_every_file_and_breast(service: Service, folder: Path) -> None:
    files = [
        dicom(breast(300, 200), ImageLaterality=side, StudyDate="20240301") for side in ("L", "R")
    ]
    files.append(b"a note in the folder")
    answer = service.post(
        "/predict/series",
        files=[("files", (f"{n}.dcm", data)) for n, data in enumerate(files)],
        headers=BEARER,
    ).json()
    record = records(folder)[-1]
    assert record["route"] == "/predict/series"
    assert record["images"] == [sha256(data) for data in files]
    assert [(one["laterality"], one["calibrated_probability"]) for one in record["breasts"]] == [
        (one["laterality"], one["calibrated_probability"]) for one in answer["breasts"]
    ]


@pytest.mark.parametrize(
    ("body", "problem", "status"), [(b"no image", "unsupported_format", 415), (b"", "no_file", 400)]
)
def test_a_refused_prediction_is_recorded_with_its_reason_and_no_result(
    service: Service, folder: Path, body: bytes, problem: str, status: int
) -> None:
    service.post("/predict", content=body, headers=BEARER)
    record = records(folder)[-1]
    assert (record["status"], record["problem"]) == (status, problem)
    assert record["images"] == ([sha256(body)] if body else [])
    assert record["breasts"] == []
    assert record["operating_point"] is None


def test_logins_are_recorded_and_a_name_that_nobody_has_is_not_quoted(
    service: Service, folder: Path
) -> None:
    def logged_in(user: str, password: str) -> dict[str, Any]:
        service.post("/session", json={"user": user, "password": password})
        record = records(folder)[-1]
        assert (record["event"], record["route"]) == ("login", "/session")
        return {key: record[key] for key in ("who", "status", "problem")}

    ana = {"name": "ana", "kind": "user"}
    assert logged_in("ana", PASSWORD) == {"who": ana, "status": 200, "problem": None}
    failed = {"status": 401, "problem": "login_failed"}
    assert logged_in("ana", "SECRET wrong") == {"who": ana, **failed}
    assert logged_in("SECRETname", "wrong") == {"who": None, **failed}
    service.client.cookies.clear()
    assert "SECRET" not in (folder / "audit.jsonl").read_text()


def test_who_is_nobody_cannot_fill_the_log(service: Service, folder: Path) -> None:
    count = len(records(folder))
    assert service.post("/predict", content=IMAGE).status_code == 401
    assert service.post("/session", content=b"{").status_code == 422
    assert service.get("/v1/models").status_code == 401
    assert len(records(folder)) == count
    guess = {"user": "guessed", "password": "wrong"}
    statuses = [service.post("/session", json=guess).status_code for _ in range(8)]
    assert statuses == [401] * MOST_OF_USER + [429] * 3
    assert len(records(folder)) == count + MOST_OF_USER


def test_nothing_of_a_header_is_in_the_log(service: Service, folder: Path) -> None:
    data = planted(real_dicom("explicit"))
    options = {"headers": BEARER, "params": {"gate": "warn"}}
    assert service.post("/predict", content=data, **options).status_code == 200
    assert service.post("/predict", content=data[:-5000], **options).status_code == 422
    text = (folder / "audit.jsonl").read_text()
    assert sha256(data) in text
    for word in (MARKER, BIRTH, "47114711"):
        assert word not in text


def test_a_log_that_was_moved_away_goes_on_in_a_new_file(
    bundle_folder: Path, tmp_path: Path
) -> None:
    log, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    with serving(bundle_folder, tmp_path, audit_file=log) as service:
        service.post("/predict", content=IMAGE)
        log.rename(old)
        service.post("/predict", content=IMAGE)
    with serving(bundle_folder, tmp_path, audit_file=log):
        pass
    command = [sys.executable, "-m", "app.audit", "verify", str(old), str(log)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    events = [json.loads(line)["event"] for line in log.read_bytes().splitlines()]
    assert events == ["begin", "prediction", "start"]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("target", ["file", "stdout"])
def test_processes_write_one_chain_to_a_file_or_to_standard_output(
    bundle_folder: Path, tmp_path: Path, processes: int, target: str
) -> None:
    log = tmp_path / "audit.jsonl"
    setting = log if target == "file" else "-"
    with serving(
        bundle_folder, tmp_path, audit_file=setting, processes=processes, workers=1
    ) as service, ThreadPoolExecutor(8) as pool:  # fmt: skip

        def post(_: int) -> httpx.Response:
            return httpx.post(
                f"{service.client.base_url}/predict", content=IMAGE, timeout=60, trust_env=False
            )

        answers = [answer.json() for answer in pool.map(post, range(16))]
        if target == "stdout":
            printed = service.output.read_bytes().splitlines(keepends=True)
            log.write_bytes(b"".join(line for line in printed if line.startswith(b'{"audit":')))
    found = [record for record in records(tmp_path) if record["event"] == "prediction"]
    assert {record["request_id"] for record in found} == {one["request_id"] for one in answers}
    assert len(found) == 16
    assert {record["who"] is None for record in found} == {True}


# a disk that is full


def full_after(size: int) -> tuple[int, int]:
    """What limits a file to so many bytes: for whoever writes to it, the disk is full then."""
    return (size, resource.RLIM_INFINITY)


@pytest.mark.parametrize(("setting", "status"), [("refuse", 503), ("continue", 200)])
def test_what_cannot_be_recorded_is_not_answered_unless_the_setting_allows_it(
    bundle_folder: Path, tmp_path: Path, setting: str, status: int
) -> None:
    log = tmp_path / "audit.jsonl"
    users = f"ana:{hashed(PASSWORD)}"
    with serving(
        bundle_folder, tmp_path, audit_file=log, audit_failure=setting, users=users, access="login",
        api_keys=f"pacs:{hash_of(KEY)}",
    ) as service:  # fmt: skip

        def predicted() -> httpx.Response:
            return service.post("/predict", content=IMAGE, headers=BEARER)

        unlimited = full_after(resource.RLIM_INFINITY)
        assert predicted().status_code == 200
        whole = log.read_bytes()
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, full_after(len(whole) + 100))
        refused = predicted()
        assert refused.status_code == status
        login = service.post("/session", json={"user": "ana", "password": PASSWORD})
        assert login.status_code == status
        if setting == "refuse":
            assert refused.json()["code"] == "audit_unavailable"
            assert "calibrated_probability" not in refused.text
            assert "set-cookie" not in login.headers
        assert log.read_bytes() == whole
        assert service.metric("mammoseq_audit_failures_total") == 2
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert predicted().status_code == 200
        assert len(records(tmp_path)) == 4


def test_a_log_that_cannot_be_written_refuses_the_start(
    bundle_folder: Path, tmp_path: Path
) -> None:
    for file in ("", "/", tmp_path, tmp_path / "no" / "such" / "folder"):
        status, printed = refused_to_start(bundle_folder, audit_file=file)
        assert status == 1
        assert "refused to start: MAMMOSEQ_AUDIT_FILE" in printed
        assert "Traceback" not in printed
    assert not tmp_path.with_name(f"{tmp_path.name}.last").exists()


def test_a_file_of_something_else_refuses_the_start_and_stays_as_it_is(
    bundle_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "users.yaml"
    file.write_text("users:\n- a line without an end")
    status, printed = refused_to_start(bundle_folder, audit_file=file)
    assert (status, "refused to start: MAMMOSEQ_AUDIT_FILE" in printed) == (1, True)
    assert file.read_text() == "users:\n- a line without an end"


# FHIR


@pytest.mark.parametrize("accept", ["application/json", "application/fhir+json"])
def test_an_audit_event_says_who_had_which_files_read(service: Service, accept: str) -> None:
    from fhir.resources.R4B.auditevent import AuditEvent

    data = real_dicom("explicit")
    answer = service.post(
        "/predict",
        content=data,
        params={"objects": "auditevent"},
        headers=BEARER | {"Accept": accept, "X-Request-ID": "r2"},
    ).json()
    bundle = answer["fhir"] if accept == "application/json" else answer
    entries = {entry["fullUrl"]: entry for entry in bundle["entry"]}
    (entry,) = [e for e in bundle["entry"] if e["resource"]["resourceType"] == "AuditEvent"]
    assert entry["request"] == {"method": "POST", "url": "AuditEvent"}
    event = AuditEvent.model_validate(entry["resource"])
    caller, reader = event.agent
    assert (caller.who.identifier.value, caller.network.address) == ("pacs", "127.0.0.1")
    assert entries[reader.who.reference]["resource"]["resourceType"] == "Device"
    values = [one.what.identifier.value for one in event.entity if one.what.identifier]
    assert values == [sha256(data), "r2"]
    made = [entries[one.what.reference] for one in event.entity if one.what.reference]
    assert [one["resource"]["resourceType"] for one in made] == ["Observation", "DiagnosticReport"]


def test_without_being_asked_for_there_is_no_audit_event(service: Service) -> None:
    answer = service.post(
        "/predict", content=IMAGE, params={"objects": "fhir"}, headers=BEARER
    ).json()
    kinds = {entry["resource"]["resourceType"] for entry in answer["fhir"]["entry"]}
    assert "AuditEvent" not in kinds
