"""``python -m benchmarks.swap``: what several models cost in memory, and what a swap costs in time.

Versions of the shipped model are made that differ in nothing but their number. The service is
started with one to three of them, and its resident memory is read after the same requests to each.
Then one client scores and another asks for ``/healthz/live`` while a new version is dropped into
the store: the longest answers until that version answers are compared with those before.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

from app.bundle import (
    MANIFEST,
    MANIFEST_HASH,
    Bundle,
    BundleError,
    find_bundle,
    load_bundle,
    new_version,
    seal,
)
from app.machine import available_cores
from app.settings import Settings
from benchmarks.inputs import synthetic_files
from benchmarks.service import Service, ServiceError, running_service

_MODELS = 3
_REQUESTS = 20  # to each model
_LOOK_SECONDS = 1.0
_BEFORE_SECONDS = 5.0


class Asked:
    """Seconds that answers took, with the time of each (``time.monotonic``), until it is over."""

    def __init__(self, service: Service, method: str, path: str, body: bytes | None) -> None:
        self.answers: list[tuple[float, float, int]] = []
        self._over = threading.Event()
        self._ask = partial(service.fetch, method, path, body)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def seconds(self, since: float, until: float) -> list[float]:
        return [took for at, took, _ in self.answers if since <= at < until]

    def _run(self) -> None:
        while not self._over.is_set():
            at = time.monotonic()
            status, _ = self._ask()
            self.answers.append((at, time.monotonic() - at, status))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap")
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    options = parser.parse_args(arguments)
    cores, python = available_cores(), platform.python_version()
    print(f"{platform.machine()}, {cores} cores, Python {python}")
    body = synthetic_files(full_size=False)["dicom-1280"]
    try:
        bundle = load_bundle(find_bundle(options.model_store, Settings().model))
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder)
            for number in range(_MODELS):
                _put(bundle, store, f"1.{number}.0")
            for number in range(1, _MODELS + 1):
                megabytes = _memory(bundle.manifest.name, store, number, body)
                print(f"{number} loaded: {megabytes:.0f} MB resident")
            _swap(bundle, store, body)
    except (BundleError, ServiceError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    return 0


def _put(bundle: Bundle, store: Path, version: str) -> None:
    manifest = bundle.manifest.model_dump(exclude={"files"}) | {"version": version}
    with new_version(store / bundle.manifest.name / version) as folder:
        sealed = shutil.ignore_patterns(MANIFEST, MANIFEST_HASH)
        shutil.copytree(bundle.folder, folder, ignore=sealed, dirs_exist_ok=True)
        seal(folder, manifest)


def _memory(name: str, store: Path, number: int, body: bytes) -> float:
    models = [f"{name}/1.{n}.0" for n in range(number)]
    settings = {"MAMMOSEQ_MODEL": models[0], "MAMMOSEQ_MORE_MODELS": ",".join(models[1:])}
    with running_service(store, settings=settings) as service:
        for _ in range(_REQUESTS):
            for model in models:
                service.fetch("POST", f"/predict?gate=warn&model={model}", body)
        text = Path(f"/proc/{service.pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+) kB$", text, re.MULTILINE)[0]) / 1024


def _swap(bundle: Bundle, store: Path, body: bytes) -> None:
    settings = {"MAMMOSEQ_STORE_SECONDS": str(_LOOK_SECONDS)}
    with running_service(store, settings=settings) as service:
        scoring = Asked(service, "POST", "/predict?gate=warn", body)
        probing = Asked(service, "GET", "/healthz/live", None)
        try:
            start = time.monotonic()
            time.sleep(_BEFORE_SECONDS)
            _put(bundle, store, "2.0.0")
            dropped = time.monotonic()
            while _default(service) != "2.0.0":
                time.sleep(0.05)
            swapped = time.monotonic()
            time.sleep(_LOOK_SECONDS)
        finally:
            scoring.stop()
            probing.stop()
    failed = sum(status != 200 for asked in (scoring, probing) for *_, status in asked.answers)
    print(f"swapped in {swapped - dropped:.1f} s after it lay there; {failed} requests failed")
    for name, asked in (("/predict", scoring), ("/healthz/live", probing)):
        for when, since, until in (("before", start, dropped), ("until", dropped, swapped)):
            took = [1000 * seconds for seconds in asked.seconds(since, until)]
            print(f"  {name} {when}: median {median(took):.0f} ms, longest {max(took):.0f} ms")


def _default(service: Service) -> str:
    models = json.loads(service.fetch("GET", "/v1/models")[1])["models"]
    version: str = models[0]["version"]
    return version


if __name__ == "__main__":
    sys.exit(main())
