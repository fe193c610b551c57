"""A version that is dropped into the store while clients ask: good ones are swapped in with no
failed request and no mixed answer, bad ones change nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.audit.verify import verified
from app.bundle import Bundle
from tests.api.test_processes import serving_processes, started
from tests.pictures import breast, png
from tests.serving import Service, serving
from tests.stores import mend, put_corrupt_version, put_version
from tests.survive.load import asking, lasting

SECONDS = 90
CLIENTS = 3
AFTER = 10  # answers that are waited for once something has happened
QUIET = {"overlay": "none", "map": "false", "gate": "warn"}
IMAGES = [png(breast(300, 200, seed=seed)) for seed in range(3)]
OLD, NEW, BAD = "1.0.0", "1.1.0", "1.2.0"


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@dataclass(frozen=True)
class Answer:
    """To the image of that number, sent then (``time.monotonic``): what lasts of it."""

    image: int
    sent: float
    status: int
    told: Any


class Load:
    """What clients were answered."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def versions(self, since: float = 0.0) -> set[str]:
        """Those that answered what was sent ``since`` then."""
        return {answer.told["model"]["version"] for answer in self.answers if answer.sent >= since}

    def wait_for_more(self) -> None:
        wanted = len(self.answers) + AFTER
        until(lambda: len(self.answers) >= wanted)


@contextmanager
def asked(service: Service) -> Iterator[Load]:
    """While in here clients ask without a pause. No request may fail."""
    load, over, faults = Load(), threading.Event(), []

    def ask(number: int) -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=SECONDS) as client:
            while not over.is_set():
                image = number % len(IMAGES)
                sent = time.monotonic()
                try:
                    response = client.post("/predict", content=IMAGES[image], params=QUIET)
                    told = lasting(response.content)
                    load.answers.append(Answer(image, sent, response.status_code, told))
                except Exception as error:
                    faults.append(error)
                number += 1

    with asking(ask, CLIENTS, over):
        yield load
    assert not faults
    assert {answer.status for answer in load.answers} == {200}


def each(service: Service) -> list[Any]:
    """What is answered to each image now."""
    return [lasting(service.post("/predict", content=i, params=QUIET).content) for i in IMAGES]


def assert_never_mixed(load: Load, *known: Sequence[Any]) -> None:
    """Every answer is whole that of one of the models."""
    for answer in load.answers:
        assert answer.told in [answers[answer.image] for answers in known]


@pytest.fixture
def store(bundle: Bundle, tmp_path: Path) -> Path:
    put_version(bundle, tmp_path / "store", OLD)
    return tmp_path / "store"


@pytest.fixture
def folder(bundle: Bundle, store: Path) -> Path:
    return store / bundle.manifest.name / OLD


def answering(service: Service) -> str:
    version: str = service.get("/v1/models").json()["models"][0]["version"]
    return version


def test_versions_good_and_bad_come_under_load_and_no_request_fails(
    bundle: Bundle, store: Path, folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    with serving(
        folder, tmp_path, store_seconds=0.3, audit_file=log, max_queue_seconds=SECONDS
    ) as service:
        old = each(service)
        with asked(service) as load:
            load.wait_for_more()
            bad = put_corrupt_version(bundle, store, BAD)
            until(lambda: service.metric("mammoseq_refused_models") == 1)
            load.wait_for_more()
            assert load.versions() == {OLD}
            put_version(bundle, store, NEW, temperature=3.0)
            until(lambda: answering(service) == NEW)
            since = time.monotonic()
            load.wait_for_more()
            assert load.versions(since) == {NEW}
            new = each(service)
            mend(bad)
            until(lambda: answering(service) == BAD)
            load.wait_for_more()
        assert_never_mixed(load, old, new, each(service))
        assert service.metric('mammoseq_models_refused_total{reason="bundle"}') == 1
        assert service.printed().count("model_refused") == 1
        assert "Traceback" not in service.printed()
        records = log.read_bytes().splitlines(keepends=True)
        verified(records)
        swaps = [r for r in map(json.loads, records) if r["event"] == "swap"]
        changes = [change for swap in swaps for change in swap["changes"]]
        assert [(c["role"], c["replaced"]["version"], c["model"]["version"]) for c in changes] == [
            ("default", OLD, NEW),
            ("default", NEW, BAD),
        ]


def test_every_process_swaps_and_one_that_is_started_anew_has_the_new_version(
    bundle: Bundle, store: Path, folder: Path, tmp_path: Path
) -> None:
    with serving(
        folder,
        tmp_path,
        processes=2,
        workers=1,
        store_seconds=0.3,
        max_queue_seconds=SECONDS,
    ) as service:
        until(lambda: started(service) == 2)
        old = each(service)
        with asked(service) as load:
            load.wait_for_more()
            put_version(bundle, store, NEW, temperature=3.0)
            until(lambda: service.printed().count("model_swapped") == 2)
            since = time.monotonic()
            load.wait_for_more()
        assert load.versions(since) == {NEW}
        assert_never_mixed(load, old, each(service))
        # a bad one that is newer must not end what starts in its presence
        put_corrupt_version(bundle, store, BAD)
        until(lambda: service.printed().count("model_refused") == 2)
        its = min(serving_processes(service))
        os.kill(its, signal.SIGKILL)
        until(lambda: started(service) == 3)
        until(lambda: len(serving_processes(service)) == 2)
        for _ in range(8):
            with httpx.Client(base_url=service.client.base_url, timeout=SECONDS) as client:
                response = client.post("/predict", content=IMAGES[0], params=QUIET)
                assert response.json()["model"]["version"] == NEW
