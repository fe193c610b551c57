"""The bridge's whole life: look at the archive, read what is due, wait, again."""

from __future__ import annotations

import logging
import random
import time
from datetime import date, timedelta
from typing import TYPE_CHECKING

from app import logs
from app.bridge import metrics
from app.bridge.dicomweb import Archive, Study
from app.bridge.faults import Refused, Unavailable
from app.bridge.observe import Pulse, study_hash
from app.bridge.reading import Order, carry_out
from app.bridge.results import mammograms
from app.bridge.service import Service
from app.bridge.settings import Settings
from app.bridge.worklist import Worklist
from app.tracing.spans import Span, ended, note

if TYPE_CHECKING:
    from app.tracing.collector import Collector

_LONGEST_PAUSE_SECONDS = 60.0


def run(
    archive: Archive,
    service: Service,
    settings: Settings,
    salt: bytes,
    pulse: Pulse,
    collector: Collector | None = None,
) -> None:
    """Never returns. Nothing that a side does or fails to do ends it."""
    worklist = Worklist(settings.stable_seconds, settings.poll_seconds)
    failures = 0
    while True:
        pulse.beat()
        try:
            look(archive, worklist, settings)
            read_due(archive, service, worklist, settings, salt, collector)
            if failures:
                logs.event("answers_again", {})
            failures = 0
        except Unavailable as fault:
            failures += 1
            _count(fault)
            fields = {"side": fault.side, "code": fault.code}
            logs.event("waiting", fields, logging.WARNING)
        except Exception as error:  # its text may hold what came from a header
            failures += 1
            _count_own(error)
        metrics.WAITING.set(worklist.waiting())
        time.sleep(pause_seconds(settings.poll_seconds, failures))


def pause_seconds(poll_seconds: float, failures: int) -> float:
    """Twice as long after each failure, up to a minute, and never in step with other bridges."""
    longest = max(poll_seconds, _LONGEST_PAUSE_SECONDS)
    pause = min(longest, poll_seconds * 2.0 ** min(failures, 30))
    return pause * random.uniform(0.5, 1.0) if failures else pause  # nosec B311: only to spread


def look(archive: Archive, worklist: Worklist, settings: Settings) -> None:
    """Bring the worklist up to date with the archive."""
    matching = {"ModalitiesInStudy": "MG"}
    if settings.lookback_days:
        first = date.today() - timedelta(days=settings.lookback_days)
        matching["StudyDate"] = f"{first:%Y%m%d}-"
    for study in worklist.take(archive.studies(matching), time.monotonic()):
        images = mammograms(archive.instances(study.uid))
        worklist.observe(study, images, time.monotonic())


def read_due(
    archive: Archive,
    service: Service,
    worklist: Worklist,
    settings: Settings,
    salt: bytes,
    collector: Collector | None = None,
) -> None:
    """Read every study that is due now; a fault that the next one would meet ends it."""
    model = service.model()
    for study in worklist.due(model, time.monotonic()):
        begun = collector.begin("study", None, "internal") if collector is not None else None
        named = _named(study_hash(salt, study.uid), begun)
        try:
            with ended(begun):
                _read(study, model, archive, service, worklist, settings, named)
        except Unavailable as fault:
            worklist.postpone(study.uid, time.monotonic())
            if fault.everyone:
                raise
            _count(fault)
            fields = {**named, "side": fault.side, "code": fault.code}
            logs.event("study_postponed", fields, logging.WARNING)
        except Exception as error:  # one study must not keep the others from being read
            worklist.postpone(study.uid, time.monotonic())
            _count_own(error)


def _read(
    study: Study,
    model: str,
    archive: Archive,
    service: Service,
    worklist: Worklist,
    settings: Settings,
    named: dict[str, str],
) -> None:
    start = time.monotonic()
    order = Order(study, worklist.images(study.uid), model, worklist.ignored(study.uid, model))
    try:
        done = carry_out(order, archive, service, settings)
    except Refused as refused:
        worklist.settle(study.uid, model, "refused")
        metrics.REFUSED.labels(refused.code).inc()
        note({"mammoseq.problem": refused.code})
        logs.event("study_refused", {**named, "code": refused.code}, logging.WARNING)
        return
    if done is None:
        logs.event("study_changed", named)
        return
    worklist.settle(study.uid, done.model, "done", done.ignored)
    if done.stored:
        metrics.READ.inc()
        note({"mammoseq.images": done.sent, "mammoseq.priors": done.priors})
        seconds = round(time.monotonic() - start, 1)
        fields = {
            "images": done.sent, "priors": done.priors, "ignored": len(done.ignored),
            "stored": done.stored, "seconds": seconds,
        }  # fmt: skip
        logs.event("study_read", {**named, **fields})


def _named(study_hash: str, begun: Span | None) -> dict[str, str]:
    """What a study is called in the log: with its trace, if there is one."""
    if begun is None or not begun.recorded:
        return {"study": study_hash}
    return {"study": study_hash, "trace_id": begun.trace_id}


def _count(fault: Unavailable) -> None:
    metrics.FAILURES.labels(fault.side, fault.code).inc()


def _count_own(error: Exception) -> None:
    """A fault of the bridge itself: which and where, never the error's own text."""
    metrics.FAILURES.labels("bridge", "internal_error").inc()
    fields = {"type": type(error).__name__, "at": logs.place_of(error)}
    logs.event("internal_error", fields, logging.ERROR)
