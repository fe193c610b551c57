"""``python -m benchmarks.series``: what each exam adds to a series, and how series and single
images get along.

The exams of one breast, 1 to 16 of them with one image each, are sent to the service over HTTP as a
form with a ``series`` part. The lengths take turns, in rounds whose order swaps: with one request
at a time (latency) and with eight (seconds of service a request, from the throughput). Printed are
the cost of an added exam between successive lengths, a straight line through all of them, and by
how much the worst length leaves it. The latency of a single image is not on the line: it keeps one
core busy, every longer series all of them.

Then four connections send single images, in turns: alone, beside four that send series of eight,
and beside 32 more that send singles, which are as many images. Where images are served one by one,
whatever request they came with, a single waits no longer beside the series than beside the
singles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from app.bundle import BundleError
from app.machine import available_cores
from app.settings import Settings
from benchmarks import client
from benchmarks.client import LoadError
from benchmarks.inputs import exams_of_a_breast
from benchmarks.measured import Round
from benchmarks.service import Service, ServiceError, running_service

LENGTHS = (1, 2, 4, 8, 12, 16)
CONCURRENCIES = (1, 8)
_WARM_UP_SECONDS = 0.5
_SINGLES, _SERIES, _SERIES_LENGTH = 4, 4, 8
_PATH = "/predict/series"
# The same exams come again and again; their cost is asked for, not that of remembering them
_NOTHING_REMEMBERED = {"MAMMOSEQ_REMEMBERED_BYTES": "0"}


@dataclass(frozen=True)
class Growth:
    """``seconds`` are the cost of a request of each length, medians over the rounds."""

    input: str
    concurrency: int
    seconds: dict[int, float]

    @property
    def per_exam(self) -> dict[str, float]:
        """Seconds for each added exam, between successive lengths."""
        pairs = itertools.pairwise(self.seconds.items())
        return {f"{a}-{b}": (after - before) / (b - a) for (a, before), (b, after) in pairs}

    @property
    def line(self) -> tuple[float, float]:
        """Seconds per exam and per request, of the straight line that fits best."""
        lengths, seconds = zip(*self._fitted.items(), strict=True)
        slope, start = np.polyfit(lengths, seconds, 1, w=1 / np.asarray(seconds))
        return float(slope), float(start)

    @property
    def worst_deviation(self) -> float:
        """Of a length from the line, as a share of it."""
        slope, start = self.line
        return max(
            abs(seconds / (slope * length + start) - 1) for length, seconds in self._fitted.items()
        )

    @property
    def _fitted(self) -> dict[int, float]:
        return {k: s for k, s in self.seconds.items() if self.concurrency > 1 or k > 1}


@dataclass(frozen=True)
class Mix:
    """Single images beside other requests of so many ``images``, round by round; each round holds
    the singles and, where there are any, the others."""

    beside: str
    images: int
    rounds: list[dict[str, Round]]

    @property
    def images_per_second(self) -> float:
        return median(
            sum(done.requests_per_second * (self.images if name == "others" else 1)
                for name, done in of_round.items())
            for of_round in self.rounds
        )  # fmt: skip

    def milliseconds(self, percent: float, name: str = "singles") -> float:
        latencies = np.concatenate([of_round[name].latency_seconds for of_round in self.rounds])
        return 1000 * float(np.percentile(latencies, percent))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    print(
        f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}; "
        f"{options.rounds} rounds of {options.seconds:g} s a length"
    )
    growths: list[Growth] = []
    mixes: list[Mix] = []
    try:
        with running_service(options.model_store, settings=_NOTHING_REMEMBERED) as service:
            for name in ("jpeg-640", "dicom-1280"):
                files = exams_of_a_breast(LENGTHS[-1], dicom=name == "dicom-1280")
                for concurrency in CONCURRENCIES:
                    growth = _growth(service, name, files, concurrency, options)
                    _print_growth(growth)
                    growths.append(growth)
            mixes = _mixes(service, exams_of_a_breast(_SERIES_LENGTH), options)
            _print_mixes(mixes)
            batches = _images_per_batch(service)
            print(f"images per encoder batch, mean of all: {batches:.2f} (CPU: 1 unless set)")
    except (BundleError, ServiceError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(_report(growths, mixes), indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.series")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one turn (default 1.5)")
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def _growth(
    service: Service,
    name: str,
    files: Sequence[bytes],
    concurrency: int,
    options: argparse.Namespace,
) -> Growth:
    requests = {n: client.post_series(service.port, _PATH, files[:n]) for n in LENGTHS}
    costs: dict[int, list[float]] = {n: [] for n in LENGTHS}

    def turn(length: int, seconds: float) -> Round:
        return client.run(
            service.port, service.pid, requests[length], concurrency=concurrency, seconds=seconds
        )

    turn(LENGTHS[-1], _WARM_UP_SECONDS)
    for number in range(options.rounds):
        for length in LENGTHS[:: -1 if number % 2 else 1]:
            done = turn(length, options.seconds)
            alone = concurrency == 1
            costs[length].append(
                median(done.latency_seconds) if alone else 1 / done.requests_per_second
            )
    return Growth(name, concurrency, {length: median(costs[length]) for length in LENGTHS})


def _mixes(service: Service, exams: Sequence[bytes], options: argparse.Namespace) -> list[Mix]:
    single = client.post(service.port, "/predict", exams[0])
    series = client.post_series(service.port, _PATH, exams)
    others = {
        "nothing": (1, []),
        f"{_SERIES} series of {len(exams)}": (len(exams), [series] * _SERIES),
        f"{_SERIES * len(exams)} singles": (1, [single] * _SERIES * len(exams)),
    }
    mixes = [Mix(name, images, []) for name, (images, _) in others.items()]
    for number in range(options.rounds):
        for mix in mixes[:: -1 if number % 2 else 1]:
            loads = {"singles": [single] * _SINGLES, "others": others[mix.beside][1]}
            mix.rounds.append(
                client.run_together(
                    service.port,
                    service.pid,
                    {k: [itertools.repeat(r) for r in v] for k, v in loads.items() if v},
                    seconds=2 * options.seconds,
                )
            )
    return mixes


def _images_per_batch(service: Service) -> float:
    _, text = service.fetch("GET", "/metrics")
    images, batches = (
        float(
            re.findall(rf"^mammoseq_batch_size_images_{part} (\S+)$", text.decode(), re.MULTILINE)[
                0
            ]
        )
        for part in ("sum", "count")
    )
    return images / batches


def _print_growth(growth: Growth) -> None:
    alone = growth.concurrency == 1
    what = "latency alone" if alone else f"cost at concurrency {growth.concurrency}"
    slope, start = growth.line
    print(f"\n{growth.input}, {what}, ms a request")
    print("  exams      " + "".join(f"{length:>9}" for length in growth.seconds))
    print("  ms         " + "".join(f"{1000 * s:>9.1f}" for s in growth.seconds.values()))
    print("  added exam " + "".join(f"{1000 * s:>9.1f}" for s in [0.0, *growth.per_exam.values()]))
    print(
        f"  line: {1000 * start:.1f} ms + {1000 * slope:.2f} ms an exam; worst deviation "
        f"{100 * growth.worst_deviation:.1f} % (target: constant cost per exam)",
        flush=True,
    )


def _print_mixes(mixes: Sequence[Mix]) -> None:
    print(f"\n{_SINGLES} connections with single images beside")
    for mix in mixes:
        others = mix.rounds[0].get("others")
        print(
            f"  {mix.beside:<16} p50 {mix.milliseconds(50):7.1f}  p99 {mix.milliseconds(99):7.1f}"
            f" ms  all together {mix.images_per_second:.1f} images/s"
            + (f"; theirs: p50 {mix.milliseconds(50, 'others'):.1f} ms" if others else "")
        )
    series, singles = mixes[1], mixes[2]
    print(
        f"  p99 beside series as a share of p99 beside as many singles: "
        f"{series.milliseconds(99) / singles.milliseconds(99):.2f} (target: about 1 or less)"
    )


def _report(growths: Sequence[Growth], mixes: Sequence[Mix]) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "growth": [
            {
                "input": growth.input,
                "concurrency": growth.concurrency,
                "seconds": growth.seconds,
                "seconds_per_added_exam": growth.per_exam,
                "line_seconds": dict(zip(("exam", "request"), growth.line, strict=True)),
                "worst_deviation": growth.worst_deviation,
            }
            for growth in growths
        ],
        "mixes": [
            {
                "singles_beside": mix.beside,
                "p50_ms": mix.milliseconds(50),
                "p99_ms": mix.milliseconds(99),
                "images_per_second": mix.images_per_second,
            }
            for mix in mixes
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
