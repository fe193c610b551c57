"""``python -m benchmarks.peers``: Mammoseq against other ways of serving the same model.

Mammoseq and one peer after the other are up; they take turns in rounds whose order swaps, and
while one works the other idles. The load generator runs on the same cores as both. Peers that
cannot be installed or started are named and left out. The exit status says whether anything was
measured, not how it turned out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from app.machine import available_cores
from app.settings import Settings
from benchmarks import client
from benchmarks.client import LoadError
from benchmarks.inputs import files_of_every_format
from benchmarks.measured import Side, turns
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.figures import HEADING, Case, case_of, row, save, saved, summary
from benchmarks.peers.served import PeerError, Served, running_peer
from benchmarks.service import Service, ServiceError, running_service

CONCURRENCIES = (1, 8, 32)
# Peers read large images at full size, which the model answers a little differently (decision 011)
PROBABILITY_TOLERANCE = 0.05
_WARM_UP_SECONDS = 2.0  # every worker of a peer shall have worked
_IDLE_SECONDS = 1.0
_LONG_SECONDS = 20.0  # a comparison that has taken as long gets no further round
_FIRST = "jpeg-640"  # what a peer is asked for until it answers


def main(arguments: Sequence[str] | None = None) -> int:
    files = files_of_every_format()
    options = _options(files, arguments)
    _print_setting(options)
    cases = {case.key: case for case in saved(options.json)} if options.json else {}
    measured = 0
    try:
        with running_service(options.model_store) as service:
            for peer in options.peers:
                for case in _cases_of(peer, service, files, options):
                    print(row(case), flush=True)
                    cases[case.key] = case
                    measured += 1
                if options.json:
                    save(options.json, cases.values(), _setting(options))
    except (ServiceError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    print()
    for line in summary(cases.values()):
        print(line)
    return 0 if measured else 1


def _options(files: dict[str, bytes], arguments: Sequence[str] | None) -> argparse.Namespace:
    by_name = {peer.name: peer for peer in PEERS}

    def names(among: Sequence[str]) -> Callable[[str], list[str]]:
        def split(value: str) -> list[str]:
            chosen = value.split(",")
            for name in chosen:
                if name not in among:
                    raise argparse.ArgumentTypeError(f"{name}: not one of {', '.join(among)}")
            return chosen

        return split

    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--peers", type=names(list(by_name)), default=list(by_name))
    parser.add_argument("--inputs", type=names(list(files)), default=list(files))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side (default 2)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one turn (default 1.5)")
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="save the figures, beside those in the file"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    options.peers = [by_name[name] for name in options.peers]
    return options


def _cases_of(
    peer: Peer, service: Service, files: dict[str, bytes], options: argparse.Namespace
) -> Iterator[Case]:
    """Every comparison with one peer; says what of it could not be measured."""
    try:
        with running_peer(peer, options.model_store, available_cores(), files[_FIRST]) as served:
            _run(served, files[_FIRST], 8)(_WARM_UP_SECONDS)
            _print_idle(served)
            for name in options.inputs:
                _check_same_answer(service, served, files[name])
                for concurrency in CONCURRENCIES:
                    ours = _run(service, files[name], concurrency)
                    theirs = _run(served, files[name], concurrency)
                    rounds = turns(ours, theirs, options.rounds, options.seconds, _LONG_SECONDS)
                    yield case_of(peer.name, name, concurrency, rounds)
    except (PeerError, LoadError) as error:
        print(f"{peer.name}: {error}", flush=True)


def _run(side: Service | Served, file: bytes, concurrency: int) -> Side:
    if isinstance(side, Service):
        request = client.post(side.port, "/predict", file)
    else:
        headers, body = side.peer.request(file)
        request = client.post(side.port, side.peer.path, body, headers)
    return lambda seconds: client.run(
        side.port, side.pid, request, concurrency=concurrency, seconds=seconds
    )


def _check_same_answer(service: Service, served: Served, file: bytes) -> None:
    """Both sides must do the same: one probability, overlays of one size, a map."""
    status, body = service.fetch("POST", "/predict", file)
    if status != 200:
        raise LoadError(f"mammoseq: status {status}: {body[:500].decode(errors='replace')}")
    ours, theirs = json.loads(body), served.ask(file)
    difference = abs(ours["calibrated_probability"] - theirs["calibrated_probability"])
    if difference > PROBABILITY_TOLERANCE and not theirs.get("random_weights"):
        raise PeerError(f"its probability differs by {difference:.3f}")
    for pictures in (ours["heatmap"], theirs["heatmap"]):
        if not pictures["map"]["data"]:
            raise PeerError("there is no map")
    sizes = [
        (answer["heatmap"]["overlay"]["height"], answer["heatmap"]["overlay"]["width"])
        for answer in (ours, theirs)
    ]
    if sizes[0] != sizes[1]:
        raise PeerError(f"its overlay has the size {sizes[1]}, ours {sizes[0]}")


def _print_idle(served: Served) -> None:
    """What a peer uses while nobody asks: Mammoseq is measured beside it."""
    before = served.cpu_seconds()
    time.sleep(_IDLE_SECONDS)
    share = (served.cpu_seconds() - before) / _IDLE_SECONDS
    print(f"{served.peer.name}: {100 * share:.0f} % of a core while idle", flush=True)


def _setting(options: argparse.Namespace) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }


def _print_setting(options: argparse.Namespace) -> None:
    print(
        f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}, "
        f"{options.rounds} rounds of {options.seconds:g} s a side; "
        f"load average {os.getloadavg()[0]:.1f} before the start\n\n{HEADING}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
