"""``python -m benchmarks.memory``: resident memory of the service under a long mixed load.

So many requests pass at concurrency 8, one side only: JPEG of 640 pixels, DICOM of 1280 pixels, of
each twenty one as a series of four exams and one with a report and a picture as DICOM, and every
hundredth a 12-megapixel DICOM, uncompressed and JPEG 2000 in turns, every other of them with DICOM
results. What the kernel says of the process (``VmRSS``, ``VmHWM``) is read every two seconds. The
slope is that of the straight line that fits the second half best. At the end the service idles for
five seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from app.bundle import BundleError
from app.machine import available_cores
from app.settings import Settings
from benchmarks import client
from benchmarks.client import LoadError
from benchmarks.inputs import exams_of_a_breast, pictures, synthetic_files
from benchmarks.service import ServiceError, running_service

TARGET_MB = 350.0
_CONCURRENCY = 8
_SAMPLE_SECONDS, _IDLE_SECONDS = 2.0, 5.0
_OBJECTS = "/predict?objects=sr,sc"


@dataclass(frozen=True)
class Sample:
    """Resident memory, now and the most so far, after so many requests were sent."""

    requests: int
    mb: float
    peak_mb: float


class Load:
    """The requests in their order, and how many were taken."""

    def __init__(self, port: int, requests: int) -> None:
        self.sent = 0
        self._requests = requests
        small = synthetic_files(full_size=False)
        jpeg, dicom = small["jpeg-640"], small["dicom-1280"]
        exams = client.post_series(port, "/predict/series", exams_of_a_breast(4))
        plain = [client.post(port, "/predict", data) for data in (jpeg, dicom)]
        self._usual = [*plain * 9, exams, client.post(port, _OBJECTS, dicom)]
        self._large = [
            client.post(port, path, picture.file)
            for path in ("/predict", _OBJECTS)
            for name in ("DICOM raw", "DICOM JPEG 2000")
            for picture in pictures(4096, 3072, name)
        ]

    def __iter__(self) -> Iterator[bytes]:
        while self.sent < self._requests:
            number = self.sent
            self.sent += 1
            if number % 100 == 99:
                yield self._large[number // 100 % len(self._large)]
            else:
                yield self._usual[number % len(self._usual)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    print(
        f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}; "
        f"{options.requests} requests, {_CONCURRENCY} at a time"
    )
    try:
        with running_service(options.model_store) as service:
            load = Load(service.port, options.requests)
            samples = [_sample(service.pid, 0)]
            ended = threading.Event()

            def watch() -> None:
                while not ended.wait(_SAMPLE_SECONDS):
                    samples.append(_sample(service.pid, load.sent))

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                requests = iter(load)
                done = client.run_together(
                    service.port,
                    service.pid,
                    {"all": [requests] * _CONCURRENCY},
                    seconds=options.seconds,
                )["all"]
            finally:
                ended.set()
                watcher.join()
            samples.append(_sample(service.pid, load.sent))
            time.sleep(_IDLE_SECONDS)
            idle = _sample(service.pid, load.sent)
    except (BundleError, ServiceError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    slope = _slope(samples)
    print(f"{len(done.latency_seconds)} answered, {done.requests_per_second:.1f} a second")
    for sample in samples[:: max(1, len(samples) // 12)]:
        print(f"  after {sample.requests:>6}: {sample.mb:7.1f} MB, most {sample.peak_mb:7.1f} MB")
    print(
        f"at start {samples[0].mb:.0f}, at the end {samples[-1].mb:.0f} "
        f"(target <= {TARGET_MB:.0f}), most {idle.peak_mb:.0f}, after {_IDLE_SECONDS:.0f} s idle "
        f"{idle.mb:.0f} MB; slope over the second half {slope:+.1f} MB per 1000 requests"
    )
    if options.json:
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": available_cores(),
            "requests": len(done.latency_seconds),
            "requests_per_second": done.requests_per_second,
            "samples": [asdict(sample) for sample in samples],
            "after_idling_mb": idle.mb,
            "mb_per_1000_requests": slope,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--requests", type=int, default=10_000, help="default 10000")
    parser.add_argument(
        "--seconds", type=float, default=900.0, help="stop after so long (default 900)"
    )
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.requests < 1 or options.seconds <= 0:
        parser.error("--requests and --seconds must be positive")
    return options


def _sample(pid: int, requests: int) -> Sample:
    text = Path(f"/proc/{pid}/status").read_text()
    now, peak = (
        int(re.findall(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)[0]) / 1024
        for name in ("VmRSS", "VmHWM")
    )
    return Sample(requests, now, peak)


def _slope(samples: Sequence[Sample]) -> float:
    """MB per 1000 requests over the second half of the load; 0 for too few samples."""
    half = [s for s in samples if s.requests >= samples[-1].requests / 2]
    if len({s.requests for s in half}) < 2:
        return 0.0
    return float(1000 * np.polyfit([s.requests for s in half], [s.mb for s in half], 1)[0])


if __name__ == "__main__":
    sys.exit(main())
