"""``python -m tests.bridge.outage MINUTES [SPEED]``: the archive is gone for so long, in each of
three ways for a third of it: it takes connections and does not answer; nothing listens; modalities
are answered and DICOMweb is not. All in minutes of the bridge's clock, which runs ``SPEED`` times
as fast as others (1 unless given). With its default settings the bridge must lose no study, read
none twice, and neither grow nor flood its log meanwhile."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import httpx

from app.bundle import find_bundle
from tests.bridge.hospital import Hospital, assert_each_once, running_hospital
from tests.bridge.processes import until
from tests.bridge.studies import Sent, study
from tests.faketime import preloaded
from tests.serving import REPOSITORY

LONGEST_PAUSE = 60  # seconds between two attempts
SHORTEST_PAUSE = 30  # the same, once they are as far apart as they get
_TIMEOUT_SECONDS = 950  # it is taken for alive beyond the 900 that are usual
_SETTINGS = {"poll_seconds": 15, "stable_seconds": 60, "timeout_seconds": _TIMEOUT_SECONDS}
_GROWTH_BYTES = 5_000_000
_READ_WITHIN = 120  # real seconds, for all studies that waited
_READ = "mammoseq_bridge_studies_read_total"
_ANSWERED = 'mammoseq_bridge_last_success_timestamp_seconds{side="archive"}'
_WAITING = "mammoseq_bridge_waiting_studies"


@dataclass(frozen=True)
class Outage:
    """What was seen of the bridge: seconds of its clock, bytes, lines of its log."""

    seconds: float
    until_it_saw_the_end: float
    longest_pause: float
    lines: int
    memory_before: int
    memory_after: int
    files_before: int
    files_after: int

    def check(self, speed: int) -> None:
        """That it was borne well; what processes take of real time counts ``speed`` times."""
        real_second = speed
        assert self.longest_pause < LONGEST_PAUSE + 2 * real_second
        assert self.until_it_saw_the_end < LONGEST_PAUSE + 10 * real_second
        assert self.lines <= self.seconds / SHORTEST_PAUSE + 4
        assert self.memory_after - self.memory_before < _GROWTH_BYTES
        assert self.files_after <= self.files_before


@contextmanager
def hospital_at(speed: int, bundle_folder: Path, folder: Path) -> Iterator[Hospital]:
    """One whose bridge has its default settings, but a shorter patience, and this clock."""
    clock = preloaded(FAKETIME=f"+0 x{speed}") if speed != 1 else {}
    with running_hospital(bundle_folder, folder, clock, **_SETTINGS) as hospital:
        yield hospital


def outage(hospital: Hospital, minutes: float) -> Outage:
    """Have it, and check that in the end each study is read once."""
    sent = _in_the_midst_of_reading(hospital)
    begun, lines = clock(hospital), len(hospital.bridge.printed().splitlines())
    memory, files = _memory(hospital), _files(hospital)
    hospital.archive.freeze()
    _wait(hospital, begun + 60 * minutes / 3)
    hospital.archive.kill()
    _wait(hospital, begun + 60 * minutes * 2 / 3)
    hospital.archive.start(HttpServerEnabled=False)
    meanwhile = _studies("meanwhile", 3)
    hospital.send(*meanwhile)
    _wait(hospital, begun + 60 * minutes)
    memory_after, files_after = _memory(hospital), _files(hospital)
    logged = hospital.bridge.printed().splitlines()[lines:]
    hospital.archive.kill()
    hospital.archive.start(HttpServerEnabled=True)
    back = clock(hospital)
    while (answered := hospital.bridge.metric(_ANSWERED)) <= back:
        assert clock(hospital) < back + 60 * minutes, "it does not see that the archive is back"
    until(
        lambda: all(len(hospital.reports(one)) == 1 for one in (*sent, *meanwhile)),
        seconds=_READ_WITHIN,
        what="every study has its report",
    )
    _wait(hospital, clock(hospital) + 5 * LONGEST_PAUSE)  # for anything that should not come
    for one in (*sent, *meanwhile):
        assert_each_once(hospital, one)
    assert hospital.bridge.metric(_WAITING) == 0
    return Outage(
        seconds=back - begun,
        until_it_saw_the_end=answered - back,
        longest_pause=_longest_pause(logged),
        lines=len(logged),
        memory_before=memory,
        memory_after=memory_after,
        files_before=files,
        files_after=files_after,
    )


def clock(hospital: Hospital) -> float:
    """The bridge's, in whole seconds: it dates its answers. It is alive at any time."""
    answer = httpx.get(f"{hospital.bridge.url}/healthz", trust_env=False)
    assert (answer.status_code, answer.text) == (200, "alive")
    return parsedate_to_datetime(answer.headers["date"]).timestamp()


def _in_the_midst_of_reading(hospital: Hospital) -> list[Sent]:
    """Studies of which one is read, and the others are waiting or under way."""
    sent = _studies("before", 8)
    hospital.send(*sent)
    hospital.wait_for_metric(_READ, 1)
    return sent


def _studies(name: str, number: int) -> list[Sent]:
    return [study(f"{name} {each}", views=("LCC", "LMLO")) for each in range(number)]


def _wait(hospital: Hospital, moment: float) -> None:
    while clock(hospital) < moment:
        time.sleep(0.2)


def _longest_pause(logged: Sequence[str]) -> float:
    """Between two attempts that were refused at once, seconds."""
    refused = [line for line in logged if line.endswith("code=unreachable")]
    moments = [datetime.fromisoformat(line[:23].replace(",", ".")) for line in refused]
    return max((b - a).total_seconds() for a, b in pairwise(moments))


def _memory(hospital: Hospital) -> int:
    pages = (hospital.bridge.process / "statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _files(hospital: Hospital) -> int:
    return sum(1 for _ in (hospital.bridge.process / "fd").iterdir())


if __name__ == "__main__":
    speed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with (
        tempfile.TemporaryDirectory() as folder,
        hospital_at(speed, find_bundle(REPOSITORY / "model_store", None), Path(folder)) as running,
    ):
        seen = outage(running, float(sys.argv[1]))
    print(seen)
    seen.check(speed)
