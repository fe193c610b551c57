"""``python -m benchmarks.overhead``: the service against a bare loop over the same code.

Both sides take turns in one run, in rounds whose order swaps: while one works the other idles.
The load generator runs on the same cores as the service; its share is printed and is part of the
ratio. The ratios are medians over the rounds, each round compared with its own counterpart. The
exit status says whether the measurement worked, not how it turned out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from app.access.keys import hash_of, new_key
from app.bundle import BundleError, find_bundle, load_bundle
from app.inference.sessions import DeviceError
from app.machine import available_cores
from app.settings import Settings
from benchmarks import client
from benchmarks.bare import BareLoop
from benchmarks.client import LoadError
from benchmarks.inputs import synthetic_files
from benchmarks.measured import Round, Side, turns
from benchmarks.service import Service, ServiceError, running_service
from benchmarks.sink import sink

CONCURRENCIES = (1, 8, 32)
HEATMAP_CONCURRENCY = 8
WITH_HEATMAP = "/predict"
WITHOUT_HEATMAP = "/predict?overlay=none&map=false"
THROUGHPUT_TARGETS = {8: 0.97, 32: 0.97}
HEATMAP_TARGET_PERCENT = 3.0
_WARM_UP_SECONDS = 0.5
_BUSY = 0.25  # load average per core from which figures are called doubtful


@dataclass(frozen=True)
class Case:
    """Two sides that took turns, round by round."""

    input: str
    concurrency: int
    names: tuple[str, str]
    rounds: list[tuple[Round, Round]]

    def side(self, place: int) -> list[Round]:
        return [pair[place] for pair in self.rounds]

    @property
    def ratios(self) -> list[float]:
        """Throughput of the second side as a share of the first's, by round."""
        return [b.requests_per_second / a.requests_per_second for a, b in self.rounds]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    settings = Settings(model_store=options.model_store)
    try:
        bundle = load_bundle(find_bundle(settings.model_store, settings.model))
        loop = BareLoop(bundle, settings)
        _print_setting(options, f"{bundle.manifest.name}/{bundle.manifest.version}", settings)
        files = synthetic_files(full_size=options.full_size)
        with running_service(settings.model_store) as service:
            for data in files.values():
                _check_same_work(loop, service, data)
            if options.cases in SWITCHES:
                cases = _switched(service, files, settings, options)
            else:
                cases = [
                    case
                    for name, data in files.items()
                    for case in _cases(loop, service, name, data, options)
                ]
    except (BundleError, DeviceError, ServiceError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    _print_summary(cases)
    if options.json:
        options.json.write_text(json.dumps(_report(cases, options), indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn (default 3)")
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument(
        "--cases",
        choices=("loop", "heatmap", *SWITCHES),
        help="only the comparison with the bare loop, or only that of heatmap and none; or that "
        "of a service that asks for a key, writes an audit log or sends traces with one that "
        "does not",
    )
    parser.add_argument("--full-size", action="store_true", help="also a 12-megapixel DICOM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def _served(
    service: Service,
    path: str,
    data: bytes,
    concurrency: int,
    headers: Mapping[str, str] = client.OCTETS,
) -> Side:
    request = client.post(service.port, path, data, headers)
    return lambda seconds: client.run(
        service.port, service.pid, request, concurrency=concurrency, seconds=seconds
    )


def _compared(
    name: str, concurrency: int, names: tuple[str, str], sides: tuple[Side, Side],
    options: argparse.Namespace,
) -> Case:  # fmt: skip
    for side in sides:
        side(_WARM_UP_SECONDS)
    case = Case(name, concurrency, names, turns(*sides, options.rounds, options.seconds))
    _print_rows(case)
    return case


@dataclass(frozen=True)
class Switched:
    """Settings of the service that does more, and what its clients send besides."""

    settings: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def _with_key() -> Iterator[Switched]:
    key = new_key()
    yield Switched(
        {"MAMMOSEQ_API_KEYS": f"pacs:{hash_of(key)}"}, {"Authorization": f"Bearer {key}"}
    )


@contextmanager
def _with_audit() -> Iterator[Switched]:
    with TemporaryDirectory() as folder:
        yield Switched({"MAMMOSEQ_AUDIT_FILE": str(Path(folder) / "audit.jsonl")})


@contextmanager
def _with_traces() -> Iterator[Switched]:
    with sink() as url:
        yield Switched({"MAMMOSEQ_TRACES_URL": url})


SWITCHES: dict[str, Callable[[], AbstractContextManager[Switched]]] = {
    "key": _with_key,
    "audit": _with_audit,
    "traces": _with_traces,
}


def _switched(
    service: Service, files: Mapping[str, bytes], settings: Settings, options: argparse.Namespace
) -> list[Case]:
    """Two services, of which one does something more; prints each case when done."""
    name = options.cases
    with (
        SWITCHES[name]() as more,
        running_service(settings.model_store, settings=more.settings) as other,
    ):
        headers = {**client.OCTETS, **more.headers}
        return [
            _compared(
                file,
                concurrency,
                (f"no {name}", name),
                (
                    _served(service, WITH_HEATMAP, data, concurrency),
                    _served(other, WITH_HEATMAP, data, concurrency, headers),
                ),
                options,
            )
            for file, data in files.items()
            for concurrency in (1, HEATMAP_CONCURRENCY)
        ]


def _cases(
    loop: BareLoop, service: Service, name: str, data: bytes, options: argparse.Namespace
) -> list[Case]:
    """Every comparison for one file; prints each when it is done."""

    def bare(concurrency: int) -> Side:
        return lambda seconds: loop.run(data, concurrency=concurrency, seconds=seconds)

    def served(path: str, concurrency: int) -> Side:
        return _served(service, path, data, concurrency)

    def compared(concurrency: int, names: tuple[str, str], first: Side, second: Side) -> Case:
        return _compared(name, concurrency, names, (first, second), options)

    cases: list[Case] = []
    if options.cases != "heatmap":
        cases += [
            compared(c, ("bare loop", "service"), bare(c), served(WITH_HEATMAP, c))
            for c in CONCURRENCIES
        ]
    if options.cases != "loop":
        cases.append(
            compared(
                HEATMAP_CONCURRENCY,
                ("no heatmap", "heatmap"),
                served(WITHOUT_HEATMAP, HEATMAP_CONCURRENCY),
                served(WITH_HEATMAP, HEATMAP_CONCURRENCY),
            )
        )
    return cases


def _check_same_work(loop: BareLoop, service: Service, data: bytes) -> None:
    """Both sides must do the same: one probability, one crop, overlays of one size."""
    status, body = service.fetch("POST", WITH_HEATMAP, data)
    if status != 200:
        raise LoadError(f"status {status}: {body[:2000].decode(errors='replace')}")
    served, bare = json.loads(body), json.loads(loop.answer(data))
    difference = abs(served["calibrated_probability"] - bare["calibrated_probability"])
    sizes = [
        (answer["heatmap"]["overlay"]["height"], answer["heatmap"]["overlay"]["width"])
        for answer in (served, bare)
    ]
    if difference > 1e-3 or served["image"] != bare["image"] or sizes[0] != sizes[1]:
        raise LoadError("the service and the bare loop answer differently")


def _print_setting(options: argparse.Namespace, model: str, settings: Settings) -> None:
    cores = available_cores()
    parts = [name for name in ("uvloop", "httptools") if find_spec(name)]
    print(
        f"{model} on {platform.machine()}, {cores} cores, Python {platform.python_version()}, "
        f"HTTP by {' and '.join(parts) or 'pure Python'}; "
        f"{settings.workers} workers, {options.rounds} rounds of {options.seconds:g} s a side"
    )
    if len(parts) < 2:
        print("warning: uvloop and httptools are not both installed; the service ships with them")
    load = os.getloadavg()[0]
    if load > _BUSY * cores:
        print(f"warning: load average {load:.1f} before the start; figures of a busy machine")
    print(
        f"\n{'input':<12}{'conc.':>5}  {'side':<11}{'requests/s (spread)':>24}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'CPU ms/req':>12}{'cores':>7}{'client CPU':>12}"
    )


def _print_rows(case: Case) -> None:
    for place, name in enumerate(case.names):
        row = _figures(case.side(place))
        rate = (
            f"{row['requests_per_second']:.1f} "
            f"({row['requests_per_second_min']:.1f}..{row['requests_per_second_max']:.1f})"
        )
        print(
            f"{case.input:<12}{case.concurrency:>5}  {name:<11}{rate:>24}"
            f"{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['cpu_ms_per_request']:>12.2f}"
            f"{row['cores_used']:>7.2f}{row['client_cpu_percent']:>10.1f} %",
            flush=True,
        )


def _figures(rounds: Sequence[Round]) -> dict[str, float]:
    """One side's figures: rates by round, latencies of all rounds together."""
    rates = [r.requests_per_second for r in rounds]
    latencies = np.concatenate([r.latency_seconds for r in rounds]) * 1000
    wall = sum(r.wall_seconds for r in rounds)
    cpu = sum(r.cpu_seconds for r in rounds)
    client_cpu = sum(r.client_cpu_seconds for r in rounds)
    return {
        "requests": len(latencies),
        "requests_per_second": median(rates),
        "requests_per_second_min": min(rates),
        "requests_per_second_max": max(rates),
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "cpu_ms_per_request": 1000 * cpu / len(latencies),
        "cores_used": (cpu + client_cpu) / wall,
        "client_cpu_percent": 100 * client_cpu / wall / available_cores(),
    }


def _print_summary(cases: Sequence[Case]) -> None:
    print("\nclient CPU is a share of all cores and is part of what the service is charged with")
    for name in dict.fromkeys(case.input for case in cases):
        print(f"\n{name}")
        for case in (c for c in cases if c.input == name):
            if case.names[1] == "heatmap":
                costs = sorted(100 * (1 / ratio - 1) for ratio in case.ratios)
                print(
                    f"heatmap cost: {median(costs):.1f} % (target <= {HEATMAP_TARGET_PERCENT:.0f} "
                    f"%; rounds {costs[0]:.1f}..{costs[-1]:.1f})"
                )
                continue
            if case.names[1] in SWITCHES:
                costs = sorted(1000 * (b - a) for a, b in _cpu_seconds(case))
                print(
                    f"{case.names[1]} at concurrency {case.concurrency}: {median(costs):+.2f} ms "
                    f"CPU a request (rounds {costs[0]:+.2f}..{costs[-1]:+.2f}), throughput ratio "
                    f"{median(case.ratios):.3f} ({min(case.ratios):.3f}..{max(case.ratios):.3f})"
                )
                continue
            target = THROUGHPUT_TARGETS.get(case.concurrency)
            wanted = f"target >= {target:.2f}; " if target else ""
            print(
                f"throughput ratio at concurrency {case.concurrency}: {median(case.ratios):.2f} "
                f"({wanted}rounds {min(case.ratios):.2f}..{max(case.ratios):.2f})"
            )
            bare, served = _figures(case.side(0)), _figures(case.side(1))
            if case.concurrency == 1:
                over = served["p50_ms"] - bare["p50_ms"]
                print(f"latency at concurrency 1: {over:+.2f} ms over the loop")
            else:
                # Little's law: what a perfect service would need for so many at a time
                least = 1000 * case.concurrency / bare["requests_per_second"]
                print(
                    f"latency at concurrency {case.concurrency}: p50 {served['p50_ms']:.1f}, "
                    f"p99 {served['p99_ms']:.1f} ms; at the loop's throughput {least:.1f} ms"
                )


def _cpu_seconds(case: Case) -> list[tuple[float, float]]:
    """Processor time of a request on each side, by round."""
    return [
        (a.cpu_seconds / len(a.latency_seconds), b.cpu_seconds / len(b.latency_seconds))
        for a, b in case.rounds
    ]


def _report(cases: Sequence[Case], options: argparse.Namespace) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cases": [
            {
                "input": case.input,
                "concurrency": case.concurrency,
                "sides": {
                    name: _figures(case.side(place)) for place, name in enumerate(case.names)
                },
                "throughput_ratio": median(case.ratios),
                "throughput_ratio_by_round": case.ratios,
            }
            for case in cases
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
