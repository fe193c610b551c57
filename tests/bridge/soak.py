"""``python -m tests.bridge.soak MINUTES [SEED]``: studies arrive and grow while every part is
killed at random moments; in the end every study must have its reports, each once."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from app.bundle import find_bundle
from tests.bridge.hospital import Hospital, evidence, running_hospital
from tests.bridge.studies import FOUR_VIEWS, Sent, study, view
from tests.serving import REPOSITORY

_STANDSTILL_SECONDS = 200  # in which no study is read, while some are to be
_LATE_VIEWS = ("ML", "LM", "XCCL")  # none that is there: of two of one view one is left out


@dataclass
class _Day:
    """What has happened so far. ``down`` holds when a killed part comes back."""

    sent: list[Sent] = field(default_factory=list)
    late: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    down: dict[str, float] = field(default_factory=dict)


def soak(hospital: Hospital, minutes: float, seed: int) -> None:
    chance = random.Random(seed)
    day = _Day()
    parts = {"archive": hospital.archive, "service": hospital.service, "bridge": hospital.bridge}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for name, back in list(day.down.items()):
            if time.monotonic() >= back:
                parts[name].start()
                del day.down[name]
        if "archive" not in day.down and chance.random() < 0.6:
            _something_arrives(hospital, day, chance)
        up = [name for name in parts if name not in day.down]
        if up and chance.random() < 0.25:
            name = chance.choice(up)
            parts[name].kill()
            day.kills[name] += 1
            day.down[name] = time.monotonic() + chance.uniform(0, 3)
        time.sleep(chance.uniform(0, 0.7))
    for name in day.down:
        parts[name].start()
    _wait_for_reports(hospital, day)
    time.sleep(5)  # for anything that should not come
    _check(hospital, day)


def _wait_for_reports(hospital: Hospital, day: _Day) -> None:
    """Until every study has a report of all of its images, however long the queue."""
    unread = day.sent
    moved = time.monotonic()
    while unread:
        still = [sent for sent in unread if not _is_read(hospital, sent)]
        if len(still) < len(unread):
            unread, moved = still, time.monotonic()
        assert time.monotonic() < moved + _STANDSTILL_SECONDS, f"{len(unread)} are not read"
        time.sleep(1)


def _something_arrives(hospital: Hospital, day: _Day, chance: random.Random) -> None:
    if day.sent and chance.random() < 0.3:
        grown = chance.choice(day.sent[-5:])
        if day.late[grown.uid] < len(_LATE_VIEWS):
            late = view(grown.uid, f"L{_LATE_VIEWS[day.late[grown.uid]]}", grown.patient)
            hospital.send(Sent(grown.uid, [late]))
            grown.files.append(late)
            day.late[grown.uid] += 1
        return
    patient = f"soak {len(day.sent)}"
    years = range(1, chance.randint(1, 3))
    priors = [study(patient, days_ago=365 * year, views=("LCC",)) for year in years]
    new = study(patient, views=chance.sample(FOUR_VIEWS, chance.randint(1, 4)))
    hospital.send(*priors, new)
    day.sent.append(new)


def _is_read(hospital: Hospital, sent: Sent) -> bool:
    return any(sent.images <= evidence(report) for report in hospital.reports(sent))


def _check(hospital: Hospital, day: _Day) -> None:
    reports = unreported = 0
    for sent in day.sent:
        results = hospital.results(sent)
        assert max(Counter(str(result.SOPInstanceUID) for result in results).values()) == 1
        read = [evidence(r) & sent.images for r in results if r.Modality == "SR"]
        assert len(set(map(frozenset, read))) == len(read), "two reports of the same images"
        assert len(read) <= 1 + day.late[sent.uid], "more reports than the study had states"
        overlays = len(results) - len(read)
        extra = overlays - sum(map(len, read))
        assert extra >= 0, "an overlay is missing"
        assert extra == 0 or day.late[sent.uid], "an overlay is there twice"
        reports += len(read)
        unreported += extra
    print(
        f"studies={len(day.sent)} late_images={day.late.total()} kills={dict(day.kills)} "
        f"reports={reports} lost=0 doubled=0 "
        f"overlays_of_a_state_that_passed_before_its_report={unreported}"
    )


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"seed={seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_hospital(find_bundle(REPOSITORY / "model_store", None), Path(folder)) as running,
    ):
        soak(running, float(sys.argv[1]), seed)
