"""``python -m benchmarks.replicas`` (``make capacity``): is the capacity model right?

The model of docs/performance.md: requests a second = requests a second of one core x cores. Three
measurements that take turns, closed loop, JPEG of 640 pixels:

- *one core*: one replica tied to one core; the load generator has the others. The rate per core.
- *one replica*: one replica with all cores, as it starts by default.
- *three replicas*: three, one worker each, behind haproxy (leastconn, readiness probed).

All of it runs on this machine: three replicas have no more cores than one, so the model predicts
the same for both, and what differs is the price of three processes and a proxy. On three machines
each would bring its own. haproxy and the load generator take their part of the cores; it is
printed, and the prediction is also given for what they leave.

Then the three are restarted one after the other under load, each drained first, as a cluster does
by withdrawing an endpoint: no request may fail.

Exit status 2 without haproxy (``apt install haproxy``), 1 if something could not be measured or a
request failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from app.machine import available_cores
from app.settings import Settings
from benchmarks import openloop
from benchmarks.balancer import Balancer, BalancerError, program, running_balancer
from benchmarks.client import LoadError
from benchmarks.inputs import synthetic_files
from benchmarks.measured import process_cpu_seconds
from benchmarks.openloop import Outcome, Request
from benchmarks.service import Service, ServiceError, free_port, running_service

REPLICAS = ("one", "two", "three")
AGREEMENT = 0.15  # the model is confirmed if it is not off by more
_IMAGES_PER_CORE = 4
_SETTLED_SECONDS = 1.0  # under load between two restarts


@dataclass(frozen=True)
class Turn:
    """One measurement: requests a second, and the cores that each part used."""

    per_second: float
    service_cores: float
    client_cores: float
    balancer_cores: float = 0.0


@dataclass(frozen=True)
class Restarts:
    """A rolling restart under load: requests by HTTP status (0: no answer), and its seconds."""

    statuses: dict[int, int]
    seconds: float
    p50_ms: float
    p99_ms: float
    worst_ms: float

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if program() is None:
        print("not measured: haproxy is not installed (apt install haproxy)", file=sys.stderr)
        return 2
    request = openloop.single("/predict", synthetic_files(full_size=False)["jpeg-640"], {})
    print(
        f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}; "
        f"{options.rounds} rounds of {options.seconds:g} s"
    )
    try:
        turns = _take_turns(request, options)
        restarts = _rolling_restart(request, options)
    except (ServiceError, BalancerError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    report = _summary(turns, restarts)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if restarts.failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn (default 4)")
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def _take_turns(request: Request, options: argparse.Namespace) -> dict[str, list[Turn]]:
    """All parts are up all the time; those that have no turn idle."""
    first = min(os.sched_getaffinity(0))
    with ExitStack() as stack:
        alone = stack.enter_context(running_service(options.model_store, cores={first}))
        whole = stack.enter_context(running_service(options.model_store))
        replicas = [
            stack.enter_context(_replica(options.model_store, free_port())) for _ in REPLICAS
        ]
        ports = {n: replica.port for n, replica in zip(REPLICAS, replicas, strict=True)}
        balancer = stack.enter_context(running_balancer(ports))
        sides: Mapping[str, Callable[[float], Turn]] = {
            "one core": lambda s: _turn(request, alone.port, [alone], None, 1, s),
            "one replica": lambda s: _turn(
                request, whole.port, [whole], None, available_cores(), s
            ),
            "three replicas": lambda s: _turn(
                request, balancer.port, replicas, balancer, available_cores(), s
            ),
        }
        turns: dict[str, list[Turn]] = {name: [] for name in sides}
        for side in sides.values():
            side(options.seconds / 4)  # warm
        for number in range(options.rounds):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                turns[name].append(sides[name](options.seconds))
    return turns


def _turn(
    request: Request,
    port: int,
    services: Sequence[Service],
    balancer: Balancer | None,
    cores: int,
    seconds: float,
) -> Turn:
    def used() -> tuple[float, float, float]:
        return (
            sum(process_cpu_seconds(service.pid) for service in services),
            time.process_time(),
            process_cpu_seconds(balancer.pid) if balancer else 0.0,
        )

    before, start = used(), time.perf_counter()
    rate = openloop.saturate(port, request, concurrency=_IMAGES_PER_CORE * cores, seconds=seconds)
    wall = time.perf_counter() - start
    return Turn(rate, *((b - a) / wall for a, b in zip(before, used(), strict=True)))


@contextmanager
def _replica(model_store: Path, port: int) -> Iterator[Service]:
    with running_service(model_store, port=port, settings={"MAMMOSEQ_WORKERS": "1"}) as service:
        yield service


def _rolling_restart(request: Request, options: argparse.Namespace) -> Restarts:
    """Restart each replica behind haproxy while a closed loop goes on."""
    ports = {name: free_port() for name in REPLICAS}
    outcomes: list[Outcome] = []
    over = threading.Event()
    with ExitStack() as stack:
        replicas: dict[str, ExitStack] = {}
        for name in REPLICAS:
            replicas[name] = stack.enter_context(ExitStack())
            replicas[name].enter_context(_replica(options.model_store, ports[name]))
        balancer = stack.enter_context(running_balancer(ports))
        load = threading.Thread(
            target=lambda: outcomes.extend(
                openloop.repeat(
                    balancer.port, request, concurrency=_IMAGES_PER_CORE, until=over.is_set
                )
            )
        )
        load.start()
        start = time.perf_counter()
        try:
            for name in REPLICAS:
                time.sleep(_SETTLED_SECONDS)
                balancer.drain(name)
                replicas[name].close()  # SIGTERM, and wait for its end
                replicas[name].enter_context(_replica(options.model_store, ports[name]))
                balancer.resume(name)
            time.sleep(_SETTLED_SECONDS)
        finally:
            over.set()
            load.join()
    latencies = [1000 * (o.done - o.sent) for o in outcomes if o.status == 200]
    if not latencies:
        raise LoadError("no request was answered during the restart")
    return Restarts(
        dict(Counter(outcome.status for outcome in outcomes)),
        time.perf_counter() - start,
        *(float(np.percentile(latencies, share)) for share in (50, 99, 100)),
    )


def _summary(turns: Mapping[str, Sequence[Turn]], restarts: Restarts) -> dict[str, object]:
    cores = available_cores()
    rate = {name: median(turn.per_second for turn in of) for name, of in turns.items()}
    print(
        f"\n{'':<16}{'requests/s (spread)':>24}{'service cores':>15}{'client cores':>14}"
        f"{'haproxy cores':>15}"
    )
    for name, of in turns.items():
        rates = [turn.per_second for turn in of]
        spread = f"{rate[name]:.1f} ({min(rates):.1f}..{max(rates):.1f})"
        print(
            f"{name:<16}{spread:>24}{median(t.service_cores for t in of):>15.2f}"
            f"{median(t.client_cores for t in of):>14.2f}"
            f"{median(t.balancer_cores for t in of):>15.2f}"
        )
    predicted = rate["one core"] * cores
    print(f"\npredicted: {rate['one core']:.1f} requests/s a core x {cores} = {predicted:.1f}")
    ratios: dict[str, dict[str, float]] = {}
    for name in ("one replica", "three replicas"):
        others = median(turn.client_cores + turn.balancer_cores for turn in turns[name])
        left = rate["one core"] * (cores - others)
        ratios[name] = {
            "measured_to_predicted": rate[name] / predicted,
            "measured_to_predicted_of_what_is_left": rate[name] / left,
        }
        print(
            f"measured, {name}: {rate[name]:.1f}, {rate[name] / predicted:.2f} of it; "
            f"{rate[name] / left:.2f} of {left:.1f}, which client and proxy leave "
            f"(confirmed within {AGREEMENT:.0%}: "
            f"{'yes' if abs(rate[name] / left - 1) <= AGREEMENT else 'NO'})"
        )
    together = rate["three replicas"] / rate["one replica"]
    print(f"three replicas behind haproxy against one on the same cores: {together:.2f}")
    answered = sum(restarts.statuses.values())
    print(
        f"rolling restart of {len(REPLICAS)} in {restarts.seconds:.1f} s under load: "
        f"{restarts.failed} of {answered} requests failed (target 0); p50 {restarts.p50_ms:.0f}, "
        f"p99 {restarts.p99_ms:.0f}, worst {restarts.worst_ms:.0f} ms"
    )
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": cores,
        "turns": {name: [asdict(turn) for turn in of] for name, of in turns.items()},
        "predicted_per_second": predicted,
        "ratios": ratios,
        "three_to_one": together,
        "rolling_restart": asdict(restarts) | {"failed": restarts.failed},
    }


if __name__ == "__main__":
    sys.exit(main())
