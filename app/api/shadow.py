"""The shadow model: scores what another model has answered, to be compared in metrics alone.

It begins once the answer has gone out, on a worker that has nothing else to do, one request at a
time, and ends as soon as requests need all workers. Nothing of it reaches a client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fastapi import Request

from app import logs, metrics
from app.api.audit import Noted
from app.api.options import Wanted
from app.bundle import OperatingPoint
from app.imaging.facts import Stated
from app.inference.admission import Admission
from app.inference.models import Models
from app.inference.pipeline import Encoded, Pipeline, Stopwatch, Terms
from app.inference.probability import calibrated
from app.inference.study import Breast
from app.inference.workers import Abandoned, Turn
from app.problems import Refusal

_LOG = logging.getLogger("mammoseq")

OUTCOMES = ("scored", "refused", "passed_over", "failed")
POSITIVE = ("both", "neither", "only_model", "only_shadow")


@dataclass(frozen=True)
class Answered:
    """What a request was answered: of each breast its calibrated probability and whether that is
    positive; and what that was made of."""

    pipeline: Pipeline
    terms: Terms
    operating_point: str
    files: Sequence[bytes]
    breasts: Sequence[Breast]
    scores: Sequence[tuple[float, bool]]


def keep_for_shadow(
    request: Request, wanted: Wanted, files: Sequence[bytes], breasts: Sequence[Breast]
) -> None:
    """Keep what was answered until the answer has gone out, if there is a shadow model."""
    models: Models = request.app.state.models
    noted: Noted = request.state.noted
    if models.lineup.shadow is None or noted.result is None:
        return
    request.state.answered = Answered(
        request.state.pipeline,
        wanted.terms,
        wanted.question.operating_point.name,
        files,
        breasts,
        [(breast.probability, breast.positive) for breast in noted.result.breasts],
    )


@dataclass(eq=False)
class _SpareTurn(Turn):
    """Is over as soon as requests have need of all workers."""

    admission: Admission = field(kw_only=True)

    def check(self) -> None:
        super().check()
        if not self.admission.has_spare_worker:
            raise Abandoned


class Shadow:
    """Used on the event loop only; stopped once."""

    def __init__(self, models: Models, admission: Admission) -> None:
        self._models = models
        self._admission = admission
        self._task: asyncio.Task[None] | None = None

    def follow(self, answered: Answered) -> None:
        """Score what was answered, too, if there is a shadow model and time to spare."""
        shadow = self._models.lineup.shadow
        if shadow is None or shadow is answered.pipeline:
            return
        if self._task is not None or not self._admission.has_spare_worker:
            metrics.SHADOW_STUDIES.labels(shadow.model, "passed_over").inc()
            return
        self._task = asyncio.create_task(self._score(shadow, answered))
        self._task.add_done_callback(self._done)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, _: asyncio.Task[None]) -> None:
        self._task = None

    async def _score(self, shadow: Pipeline, answered: Answered) -> None:
        turn = _SpareTurn(admission=self._admission)
        try:
            probabilities = await _probabilities(shadow, answered, turn)
        except Abandoned:
            outcome = "passed_over"
        except Refusal:  # its own gate, say
            outcome = "refused"
        except asyncio.CancelledError:
            turn.abandoned = True
            raise
        except Exception as error:  # whatever it is, only the shadow has it
            outcome = "failed"
            fields = {"model": shadow.model, "type": type(error).__name__}
            _LOG.error("shadow_failed", extra={"fields": {**fields, "at": logs.place_of(error)}})
        else:
            outcome = "scored"
            _compare(shadow, answered, probabilities)
        metrics.SHADOW_STUDIES.labels(shadow.model, outcome).inc()


async def _probabilities(shadow: Pipeline, answered: Answered, turn: Turn) -> list[float]:
    """Calibrated, of each breast."""
    terms, watch = replace(answered.terms, long_side=None, header=False), Stopwatch()
    images: dict[int, Encoded] = {}
    probabilities: list[float] = []
    for breast in answered.breasts:
        for index in (index for exam in breast.exams for index in exam.images):
            data = answered.files[index]
            look = partial(shadow.look_at, index, data, Stated(), terms, turn, watch, alone=True)
            images[index] = await shadow.compute.run_spare(turn, look)
        read = partial(shadow.read, images, breast.exams, watch)
        reading = await shadow.compute.run_spare(turn, read)
        probabilities.append(float(calibrated(reading.logits, shadow.bundle.manifest)))
    return probabilities


def _compare(shadow: Pipeline, answered: Answered, probabilities: Sequence[float]) -> None:
    point = _point(shadow, answered.operating_point)
    model = answered.pipeline.model
    for (probability, positive), other in zip(answered.scores, probabilities, strict=True):
        metrics.SHADOW_DIFFERENCE.labels(shadow.model, model).observe(abs(probability - other))
        called = _called(positive, other >= point.threshold)
        metrics.SHADOW_BREASTS.labels(shadow.model, model, called).inc()


def _called(by_model: bool, by_shadow: bool) -> str:
    if by_model == by_shadow:
        return "both" if by_model else "neither"
    return "only_model" if by_model else "only_shadow"


def _point(shadow: Pipeline, name: str) -> OperatingPoint:
    """The shadow's own operating point of that name, else its default."""
    manifest = shadow.bundle.manifest
    point = manifest.operating_point(name) or manifest.operating_point(None)
    assert point is not None  # the manifest was checked
    return point
