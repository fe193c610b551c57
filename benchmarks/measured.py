"""What one side did in one round, and the processor time that it took."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A round ends after its seconds or after this many requests, whichever is first
MAX_REQUESTS = 20_000


@dataclass(frozen=True)
class Round:
    """``cpu_seconds`` is of the side under test, ``client_cpu_seconds`` of the load generator.

    After the round's time nothing new is started; what is under way is finished and counts, and
    so does the time it takes.
    """

    wall_seconds: float
    latency_seconds: list[float]
    cpu_seconds: float
    client_cpu_seconds: float = 0.0

    @property
    def requests_per_second(self) -> float:
        return len(self.latency_seconds) / self.wall_seconds


Side = Callable[[float], Round]  # runs for so many seconds


def turns(
    first: Side, second: Side, count: int, seconds: float, longest_seconds: float = math.inf
) -> list[tuple[Round, Round]]:
    """Rounds of both sides, each time another one begins; none begins after ``longest_seconds``."""
    rounds: list[tuple[Round, Round]] = []
    start = time.monotonic()
    for number in range(count):
        if time.monotonic() - start > longest_seconds:
            break
        if number % 2:
            b = second(seconds)
            rounds.append((first(seconds), b))
        else:
            a = first(seconds)
            rounds.append((a, second(seconds)))
    return rounds


def process_cpu_seconds(pid: int) -> float:
    """Processor time used so far by another process and those that it has started (Linux)."""
    # Fields 14 and 15 of proc(5) stat; the second, the name, may hold spaces
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = ticks / float(os.sysconf("SC_CLK_TCK"))
    return own + sum(process_cpu_seconds(int(child)) for child in children)
