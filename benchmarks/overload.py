"""``python -m benchmarks.overload``: more than the service can do.

Its capacity is measured in a closed loop. Then requests arrive as they please (open loop,
``benchmarks.openloop``) at 0.5, 1, 2, 5 and 10 times of it: single images of 640 pixels, and a mix,
half of its work in series of eight exams. At last singles and series of 8 and 16 exams come
together at twice the capacity, a third of the work each: does any kind starve?

Goodput are answers 200 within ``--deadline-ms`` of when the request was due. A mix is counted in
work: the goodput of each kind as a share of what the service can do of that kind alone. Only the
time after the warm-up and before arrivals end counts.

The load generator shares the cores: ten times the capacity is some hundred megabytes a second, and
moving those costs it and the service's kernel side alike. Its share of the cores is printed, and so
is how late it sends; a client on another machine would leave that share to the service, so the
figures are the worse for it. ``--expect`` sends ``Expect: 100-continue``: the body of a refused
request then never leaves, but its connection ends with it. Most clients do not do that, so it is
not the default.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from app.machine import available_cores
from app.settings import Settings
from benchmarks import openloop
from benchmarks.client import LoadError
from benchmarks.inputs import synthetic_files
from benchmarks.openloop import Load, Offered, Request
from benchmarks.service import Service, ServiceError, running_service

MULTIPLES = (0.5, 1.0, 2.0, 5.0, 10.0)
GOODPUT_TARGET = 0.90  # of capacity, at ten times of it
_STARVED = 0.5  # of its fair share
_IMAGES_PER_CORE = 4  # in the closed loop
_WARM_UP_SECONDS = 1.5
_BUSY = 0.25  # load average per core from which figures are called doubtful


@dataclass(frozen=True)
class Kind:
    """What became of one kind of request. Times in milliseconds from when a request was due, NaN
    without any."""

    offered_per_second: float
    goodput_per_second: float
    refused_share: float  # answered 429
    late_share: float  # answered 504, or 200 after the deadline
    failed: int  # answered otherwise, or not at all
    admitted_p50_ms: float
    admitted_p99_ms: float
    refused_p50_ms: float
    refused_p99_ms: float


@dataclass(frozen=True)
class Step:
    scenario: str
    multiple: float
    kinds: dict[str, Kind]
    client_cores: float
    service_cores: float
    sent_late_p99_ms: float

    def work(self, capacity: Mapping[str, float]) -> dict[str, float]:
        """Goodput of each kind as a share of what the service can do of that kind alone."""
        return {name: kind.goodput_per_second / capacity[name] for name, kind in self.kinds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    headers = {"X-Deadline-Ms": f"{options.deadline_ms:.0f}"} if options.send_deadline else {}
    jpeg = synthetic_files(full_size=False)["jpeg-640"]
    requests = {
        "single": openloop.single("/predict", jpeg, headers, expect=options.expect),
        **{
            f"series of {n}": openloop.series(
                "/predict/series", jpeg, n, headers, expect=options.expect
            )
            for n in (8, 16)
        },
    }
    try:
        with running_service(options.model_store) as service:
            report = _measure(service, requests, options)
    except (ServiceError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one step (default 6)")
    parser.add_argument("--deadline-ms", type=float, default=2000.0, help="(default 2000)")
    parser.add_argument(
        "--send-deadline", action="store_true", help="tell the service, as X-Deadline-Ms"
    )
    parser.add_argument("--expect", action="store_true", help="send Expect: 100-continue")
    parser.add_argument(
        "--only", choices=("single", "mix", "together"), help="one of the three scenarios"
    )
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.deadline_ms <= 0:
        parser.error("--seconds and --deadline-ms must be positive")
    return options


def _measure(
    service: Service, requests: Mapping[str, Request], options: argparse.Namespace
) -> dict[str, object]:
    _print_setting(options)
    capacity = _capacity(service, requests, options)
    steps: list[Step] = []

    def step(scenario: str, multiple: float, kinds: Sequence[str]) -> None:
        loads = {
            kind: Load(requests[kind], multiple * capacity[kind] / len(kinds)) for kind in kinds
        }
        seconds = _WARM_UP_SECONDS + options.seconds
        offered = openloop.offer(service.port, service.pid, loads, seconds=seconds)
        steps.append(_step(scenario, multiple, offered, kinds, options.deadline_ms))
        _print_step(steps[-1], capacity)

    if options.only in (None, "single"):
        for multiple in MULTIPLES:
            step("single", multiple, ["single"])
    if options.only in (None, "mix"):
        for multiple in MULTIPLES:
            step("mix", multiple, ["single", "series of 8"])
    if options.only in (None, "together"):
        step("together", 2.0, list(requests))
    print()
    after = _capacity(service, requests, options)
    mean = {kind: (capacity[kind] + after[kind]) / 2 for kind in requests}
    _print_summary(steps, mean, options.deadline_ms)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "deadline_ms": options.deadline_ms,
        "deadline_sent": options.send_deadline,
        "expect": options.expect,
        "capacity_per_second": capacity,
        "capacity_per_second_after": after,
        "steps": [_reported(step, mean) for step in steps],
    }


def _capacity(
    service: Service, requests: Mapping[str, Request], options: argparse.Namespace
) -> dict[str, float]:
    """Requests a second of each kind alone: the median of three turns in a closed loop."""
    found: dict[str, float] = {}
    for kind, request in requests.items():
        concurrency = max(2, _IMAGES_PER_CORE * available_cores() // request.images)
        rates = [
            openloop.saturate(
                service.port, request, concurrency=concurrency, seconds=options.seconds / 3
            )
            for _ in range(3)
        ]
        found[kind] = median(rates)
        print(
            f"capacity, {kind}: {found[kind]:.1f} requests/s, {found[kind] * request.images:.1f} "
            f"images/s (closed loop of {concurrency}, {min(rates):.1f}..{max(rates):.1f})",
            flush=True,
        )
    return found


def _step(
    scenario: str,
    multiple: float,
    offered: Offered,
    kinds: Sequence[str],
    deadline_ms: float,
) -> Step:
    wall = offered.end - offered.start
    late = [1000 * (outcome.sent - outcome.due) for outcome in offered.outcomes]
    return Step(
        scenario,
        multiple,
        {kind: kind_of(offered, kind, deadline_ms) for kind in kinds},
        client_cores=offered.client_cpu_seconds / wall,
        service_cores=offered.service_cpu_seconds / wall,
        sent_late_p99_ms=_percentile(late, 99),
    )


def kind_of(
    offered: Offered,
    kind: str,
    deadline_ms: float,
    warm_up_seconds: float = _WARM_UP_SECONDS,
) -> Kind:
    """The figures of ``kind``: requests due, and answers given, after the warm-up and before
    arrivals end."""
    start, end = offered.start + warm_up_seconds, offered.end
    of_kind = [outcome for outcome in offered.outcomes if outcome.kind == kind]
    due = sum(start <= outcome.due < end for outcome in of_kind)
    # What was never answered counts from the time when it should have been
    done = [
        outcome
        for outcome in of_kind
        if start <= (outcome.done or outcome.due + deadline_ms / 1000) < end
    ]
    taken = {
        status: [1000 * (o.done - o.due) for o in done if o.status == status]
        for status in (200, 429, 504)
    }
    in_time = sum(milliseconds <= deadline_ms for milliseconds in taken[200])
    late = len(taken[200]) - in_time + len(taken[504])
    return Kind(
        offered_per_second=due / (end - start),
        goodput_per_second=in_time / (end - start),
        refused_share=len(taken[429]) / len(done) if done else 0.0,
        late_share=late / len(done) if done else 0.0,
        failed=len(done) - sum(map(len, taken.values())),
        admitted_p50_ms=_percentile(taken[200], 50),
        admitted_p99_ms=_percentile(taken[200], 99),
        refused_p50_ms=_percentile(taken[429], 50),
        refused_p99_ms=_percentile(taken[429], 99),
    )


def _reported(step: Step, capacity: Mapping[str, float]) -> dict[str, object]:
    """The step as JSON knows it: without NaN."""
    kinds = {
        name: {key: None if math.isnan(value) else value for key, value in asdict(kind).items()}
        for name, kind in step.kinds.items()
    }
    return asdict(step) | {"kinds": kinds, "work": step.work(capacity)}


def _percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


def _print_setting(options: argparse.Namespace) -> None:
    cores = available_cores()
    print(
        f"{platform.machine()}, {cores} cores, Python {platform.python_version()}; deadline "
        f"{options.deadline_ms:g} ms{', sent' if options.send_deadline else ''}"
        f"{'; Expect: 100-continue' if options.expect else ''}; steps of {options.seconds:g} s"
    )
    load = os.getloadavg()[0]
    if load > _BUSY * cores:
        print(f"warning: load average {load:.1f} before the start; figures of a busy machine")


_printed_head = (
    f"\n{'scenario':<9}{'load':>6}  {'kind':<13}{'offered/s':>10}{'good/s':>8}{'work':>7}"
    f"{'429':>7}{'late':>7}{'failed':>7}{'p50 ms':>8}{'p99 ms':>8}{'429 p50':>9}{'429 p99':>9}"
    f"{'client cores':>14}{'sent late':>11}"
)


def _print_step(step: Step, capacity: Mapping[str, float]) -> None:
    if step.multiple == MULTIPLES[0] or step.scenario == "together":
        print(_printed_head)
    work = step.work(capacity)
    for name, kind in step.kinds.items():
        print(
            f"{step.scenario:<9}{step.multiple:>5g}x  {name:<13}{kind.offered_per_second:>10.1f}"
            f"{kind.goodput_per_second:>8.1f}{work[name]:>7.2f}{100 * kind.refused_share:>6.1f}%"
            f"{100 * kind.late_share:>6.1f}%{kind.failed:>7}{kind.admitted_p50_ms:>8.0f}"
            f"{kind.admitted_p99_ms:>8.0f}{kind.refused_p50_ms:>9.1f}{kind.refused_p99_ms:>9.1f}"
            f"{step.client_cores:>14.2f}{step.sent_late_p99_ms:>8.1f} ms",
            flush=True,
        )


def _print_summary(
    steps: Sequence[Step], capacity: Mapping[str, float], deadline_ms: float
) -> None:
    print("\nas shares of the mean capacity before and after:")
    for step in steps:
        work = step.work(capacity)
        if step.multiple == MULTIPLES[-1]:
            # What the client takes away at this load and hardly takes in the closed loop
            left = 1 - step.client_cores / available_cores()
            worst = max(kind.admitted_p99_ms for kind in step.kinds.values())
            print(
                f"{step.scenario} at {step.multiple:g} times the capacity: goodput "
                f"{sum(work.values()):.2f} of it (target >= {GOODPUT_TARGET:.2f}; the client used "
                f"{100 * (1 - left):.0f} % of the cores, of the rest "
                f"{sum(work.values()) / left:.2f}); p99 of admitted requests {worst:.0f} ms "
                f"(target: below the deadline of {deadline_ms:g} ms)"
            )
        if step.scenario == "together":
            shares = {name: share * len(work) for name, share in work.items()}
            starved = [name for name, share in shares.items() if share < _STARVED]
            listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            print(
                f"together at {step.multiple:g} times the capacity: of a fair share of it, {listed}"
                f"; starved (below {_STARVED:g}): {', '.join(starved) or 'none'}"
            )


if __name__ == "__main__":
    sys.exit(main())
