"""One complete study: fetch it and its priors, have them read, store what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app import logs
from app.bridge import metrics
from app.bridge.dicomweb import Archive, Instance, Study, TooLarge
from app.bridge.faults import Refused, Unavailable
from app.bridge.results import (
    MANUFACTURER,
    Result,
    images_read,
    mammograms,
    parse_result,
)
from app.bridge.service import Service
from app.bridge.settings import Settings
from app.tracing.spans import span


@dataclass(frozen=True)
class Order:
    """A study to be read: with ``images``, by ``model``, which made nothing of those in
    ``ignored`` when it read the same images before."""

    study: Study
    images: frozenset[Instance]
    model: str
    ignored: frozenset[str]


@dataclass(frozen=True)
class Done:
    """The archive holds the results of an order. ``sent`` and ``priors`` count images and are 0
    if the results were there before. ``model`` is the one that read them: while the service is
    replaced, not always the one that was asked for."""

    model: str
    ignored: frozenset[str]
    sent: int = 0
    priors: int = 0
    stored: int = 0


def carry_out(order: Order, archive: Archive, service: Service, settings: Settings) -> Done | None:
    """None if the study has changed meanwhile. Raises ``Refused`` or ``Unavailable``.

    The archive is looked at before and after reading, so a study is read once by one bridge, and
    nearly always once by two; what both store has the same UIDs.
    """
    state = _state(order, archive)
    if state != "to_read":
        return Done(order.model, order.ignored) if state == "done" else None
    with span("fetch"):
        current = _fetch_current(order, archive, settings)
    with span("fetch priors"):
        priors = _fetch_priors(order.study, archive, settings, current)
    answer = _with_priors(current, priors, order, service) if priors else None
    if answer is None:
        priors = []
        answer = _results(service.read(current), order)
        if answer is None:
            raise Unavailable("service", "no_report")
    report, others = answer
    state = _state(order, archive)
    if state != "to_read":
        return Done(order.model, order.ignored) if state == "done" else None
    # The report makes the study done, so it is stored when the rest is known to be there
    with span("store"):
        if others:
            archive.store(order.study.uid, {result.uid: result.file for result in others})
        archive.store(order.study.uid, {report.uid: report.file})
    return Done(
        model=report.model,
        ignored=frozenset(image.uid for image in order.images) - report.references,
        sent=len(current),
        priors=len(priors),
        stored=1 + len(others),
    )


def _with_priors(
    current: list[bytes], priors: list[bytes], order: Order, service: Service
) -> tuple[Result, list[Result]] | None:
    """None if the study must be read alone: a damaged prior must not keep it from being read, and
    a report that went into a prior's study, because the service left out every image of this one,
    is not about it."""
    try:
        answer = _results(service.read([*current, *priors]), order)
        code = "no_report"
    except Refused as refused:
        answer, code = None, refused.code
    if answer is None:
        logs.event("without_priors", {"code": code})
        metrics.WITHOUT_PRIORS.inc()
    return answer


def _state(order: Order, archive: Archive) -> str:
    with span("look"):
        return _looked_at(order, archive)


def _looked_at(order: Order, archive: Archive) -> str:
    instances = archive.instances(order.study.uid)
    if mammograms(instances) != order.images:
        return "changed"
    needed = {image.uid for image in order.images} - order.ignored
    for instance in instances:
        if instance.modality == "SR":
            read = images_read(archive.metadata(order.study.uid, instance), order.model)
            if read and needed <= read:
                return "done"
    return "to_read"


def _fetch_current(order: Order, archive: Archive, settings: Settings) -> list[bytes]:
    if len(order.images) > settings.max_images:
        raise Refused("too_many_images")
    try:
        return _fetch(order.study, order.images, archive, settings.max_body_bytes)
    except TooLarge:
        raise Refused("body_too_large") from None


def _fetch_priors(
    study: Study, archive: Archive, settings: Settings, current: list[bytes]
) -> list[bytes]:
    """Images of the patient's earlier studies, the newest first, whole studies only, as many as
    one request may hold."""
    room = settings.max_body_bytes - sum(map(len, current))
    files: list[bytes] = []
    for prior in _priors(study, archive)[: settings.max_prior_exams]:
        images = mammograms(archive.instances(prior.uid))
        if len(current) + len(files) + len(images) > settings.max_images:
            break
        try:
            fetched = _fetch(prior, images, archive, room)
        except TooLarge:
            break
        files += fetched
        room -= sum(map(len, fetched))
    return files


def _priors(study: Study, archive: Archive) -> list[Study]:
    """Earlier studies of the same patient. Patient ID and its issuer must be the same to the
    letter: archives match with wildcards and without case."""
    if not study.patient_id or not study.date:
        return []
    found = archive.studies({"PatientID": study.patient_id, "ModalitiesInStudy": "MG"})
    earlier = [
        other
        for other in found
        if other.patient_id == study.patient_id
        and other.issuer_of_patient_id == study.issuer_of_patient_id
        and "" < other.date < study.date
    ]
    return sorted(earlier, key=lambda other: (other.date, other.uid), reverse=True)


def _fetch(
    study: Study, images: Iterable[Instance], archive: Archive, max_bytes: int
) -> list[bytes]:
    files = []
    for image in sorted(images, key=lambda image: image.uid):
        file = archive.retrieve(study.uid, image, max_bytes)
        files.append(file)
        max_bytes -= len(file)
    return files


def _results(files: list[bytes], order: Order) -> tuple[Result, list[Result]] | None:
    """The report and the other results of the study that was ordered; None if there are none.

    Results that this bridge would not know again as the service's are never stored: they might be
    read as if they were new.
    """
    try:
        results = [parse_result(file) for file in files]
    except ValueError:
        raise Unavailable("service", "unreadable_answer") from None
    if any(result.manufacturer != MANUFACTURER or not result.model for result in results):
        raise Unavailable("service", "foreign_result")
    of_study = [result for result in results if result.study_uid == order.study.uid]
    reports = [result for result in of_study if result.is_report and result.references]
    if len(reports) != 1:
        return None
    return reports[0], [result for result in of_study if not result.is_report]
