"""What was measured, as rows of a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measured import Round

KERAS = "keras"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the median of its rounds' rates, latencies of all of them."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Case:
    """Mammoseq and a peer that took turns; ``ratio`` is the median over the rounds of Mammoseq's
    throughput divided by the peer's."""

    peer: str
    input: str
    concurrency: int
    mammoseq: Side
    other: Side
    ratio: float
    ratios: list[float]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.peer, self.input, self.concurrency


HEADING = (
    f"{'peer':<11}{'input':<15}{'conc.':>5}"
    f"{'mammoseq/s':>11}{'p50 ms':>9}{'p99 ms':>9}"
    f"{'peer/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'ratio (rounds)':>21}{'p99 ratio':>11}"
)


def case_of(peer: str, file: str, concurrency: int, rounds: Sequence[tuple[Round, Round]]) -> Case:
    """The figures of rounds of Mammoseq and of the peer."""
    ratios = [ours.requests_per_second / theirs.requests_per_second for ours, theirs in rounds]
    ours, theirs = (_side([pair[place] for pair in rounds]) for place in (0, 1))
    return Case(peer, file, concurrency, ours, theirs, median(ratios), ratios)


def row(case: Case) -> str:
    sides = "".join(
        f"{side.requests_per_second:>{width}.1f}{side.p50_ms:>9.1f}{side.p99_ms:>9.1f}"
        for side, width in ((case.mammoseq, 11), (case.other, 9))
    )
    rounds = f"{case.ratio:.2f} ({min(case.ratios):.2f}..{max(case.ratios):.2f})"
    p99 = case.other.p99_ms / case.mammoseq.p99_ms
    return f"{case.peer:<11}{case.input:<15}{case.concurrency:>5}{sides}{rounds:>21}{p99:>11.2f}"


def summary(cases: Iterable[Case]) -> Iterable[str]:
    """For every input and concurrency, Mammoseq against the best peer, and against Keras."""
    grouped: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        grouped.setdefault((case.input, case.concurrency), []).append(case)
    yield f"{'input':<15}{'conc.':>5}{'throughput against':>29}{'p99 against':>25}{'keras':>8}"
    for (file, concurrency), group in grouped.items():
        served = [case for case in group if case.peer != KERAS]
        keras = "".join(f"{case.ratio:.2f}" for case in group if case.peer == KERAS)
        best = ["-", "-"]
        if served:
            fastest = min(served, key=lambda case: case.ratio)
            steadiest = min(served, key=_p99_ratio)
            best = [
                f"{fastest.peer} {fastest.ratio:.2f}",
                f"{steadiest.peer} {_p99_ratio(steadiest):.2f}",
            ]
        yield f"{file:<15}{concurrency:>5}{best[0]:>29}{best[1]:>25}{keras or '-':>8}"


def saved(path: Path) -> list[Case]:
    """The cases of a file; none if there is no such file."""
    if not path.exists():
        return []
    return [_case(entry) for entry in json.loads(path.read_text())["cases"]]


def save(path: Path, cases: Iterable[Case], setting: dict[str, Any]) -> None:
    content = {"setting": setting, "cases": [asdict(case) for case in cases]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def _case(entry: dict[str, Any]) -> Case:
    return Case(**{**entry, "mammoseq": Side(**entry["mammoseq"]), "other": Side(**entry["other"])})


def _side(rounds: Sequence[Round]) -> Side:
    latencies = np.concatenate([r.latency_seconds for r in rounds]) * 1000
    return Side(
        len(latencies),
        median(r.requests_per_second for r in rounds),
        float(np.percentile(latencies, 50)),
        float(np.percentile(latencies, 99)),
    )


def _p99_ratio(case: Case) -> float:
    return case.other.p99_ms / case.mammoseq.p99_ms
