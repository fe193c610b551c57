"""Query and headers of a request -> what is wanted, checked against the model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError

from app.api.answers import Pictures
from app.api.documents import OBJECT_KINDS
from app.api.negotiate import Form, negotiated
from app.api.results import Question
from app.api.schemas import ObjectKind, ViewIn
from app.api.uploads import first_fault
from app.bundle import Manifest
from app.imaging.facts import Laterality, Stated
from app.inference.pipeline import Gate, Pipeline, Terms
from app.problems import Refusal
from app.render.result import CAPTURE_LONG_SIDE
from app.settings import Settings

Query = TypeVar("Query", bound=BaseModel)

_DEFAULT_OBJECTS: frozenset[ObjectKind] = frozenset({"sr", "sc"})  # of a DICOM answer

_AUDIT_EVENT = "auditevent"


@dataclass(frozen=True)
class Wanted:
    """``objects`` are the DICOM objects to make, ``fhir`` whether a Bundle is wanted, with an
    AuditEvent in it if ``audit_event``; ``assumed`` is what is taken for true of files that do not
    say it."""

    question: Question
    form: Form
    objects: frozenset[ObjectKind]
    fhir: bool
    audit_event: bool
    pictures: Pictures
    gate: Gate
    assumed: Stated

    @property
    def terms(self) -> Terms:
        """The terms on which images are looked at for it."""
        sides = [self.pictures.overlay_long_side] if self.pictures.overlay else []
        sides += [CAPTURE_LONG_SIDE] if "sc" in self.objects else []
        return Terms(
            gate=self.gate,
            assumed=self.assumed,
            long_side=max(sides, default=None),
            header=bool(self.objects) or self.fhir,
        )


class Options(BaseModel):
    """The query of a prediction."""

    model: str | None = Field(
        None,
        description="`name` or `name/version` of a model of GET /v1/models; the service's default "
        "if left out",
    )
    operating_point: str | None = Field(
        None, description="name of an operating point; the model's default if left out"
    )
    target: str | None = Field(
        None, description="class whose evidence is mapped; the positive one by default"
    )
    overlay: Literal["jpeg", "png", "none"] = Field(
        "jpeg", description="picture of map over mammogram"
    )
    overlay_long_side: int | None = Field(
        None, ge=64, le=8192, description="of the overlay, pixels"
    )
    map: bool = Field(True, description="whether to answer the plain map")
    objects: str | None = Field(
        None,
        description="what to make of the result besides JSON, separated by commas: `sr`, `sc`, "
        "`seg`, `fhir`, `auditevent` (in the FHIR Bundle). A DICOM answer holds `sr,sc` if "
        "left out",
        examples=["sr,sc"],
    )
    gate: Gate | None = Field(
        None,
        description="`warn`: score also what does not look like a mammogram; for research",
    )
    laterality: Laterality | None = Field(
        None, description="the breast, where a file does not say it"
    )
    view: ViewIn | None = Field(None, description="the view, where a file does not say it")
    exam_date: date | None = Field(
        None, description="the date of the exam, where a file does not say it"
    )


class PixelOptions(BaseModel):
    """The query of ``/pixels``."""

    long_side: int | None = Field(
        None, ge=16, le=8192, description="at most, pixels; the whole image if left out"
    )


class NoOptions(BaseModel):
    """The query of what has its options in the body."""


def query_of(request: Request, options: type[Query]) -> Query:
    """The query. Raises ``Refusal`` (``invalid_request``)."""
    try:
        return options.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise Refusal("invalid_request", f"query.{first_fault(error)}") from None


def wanted_of(request: Request, options: Options, pipeline: Pipeline) -> Wanted:
    """What the query and the ``Accept`` header ask of a model. Raises ``Refusal``:
    ``unknown_operating_point``, ``unknown_class``, ``not_acceptable``, ``invalid_request``."""
    settings: Settings = request.app.state.settings
    manifest = pipeline.bundle.manifest
    question = question_of(manifest, options.operating_point, options.target)
    form = negotiated(", ".join(request.headers.getlist("accept")))  # RFC 9110 5.3
    chosen = _chosen(options.objects)
    kinds = frozenset(kind for kind in OBJECT_KINDS if kind in chosen)
    if form is Form.OBJECTS:
        kinds = kinds or _DEFAULT_OBJECTS
    elif form is Form.REPORT:
        kinds = frozenset({"sr"})
    elif form is Form.FHIR:  # holds none
        kinds = frozenset()
    return Wanted(
        question=question,
        form=form,
        objects=kinds,
        fhir=form is Form.FHIR or not chosen.isdisjoint({"fhir", _AUDIT_EVENT}),
        audit_event=_AUDIT_EVENT in chosen,
        pictures=Pictures(
            overlay=None if options.overlay == "none" else options.overlay,
            overlay_long_side=options.overlay_long_side or settings.overlay_long_side,
            map=options.map,
        ),
        gate=options.gate or settings.gate,
        assumed=Stated(options.exam_date, options.laterality, options.view),
    )


def question_of(manifest: Manifest, operating_point: str | None, target: str | None) -> Question:
    """What is asked of a model, its defaults for None. Raises ``Refusal``:
    ``unknown_operating_point``, ``unknown_class``."""
    point = manifest.operating_point(operating_point)
    if point is None:
        raise Refusal(
            "unknown_operating_point",
            f"The model has: {', '.join(p.name for p in manifest.operating_points)}.",
        )
    if target is not None and target not in manifest.classes:
        raise Refusal("unknown_class", f"The model has: {', '.join(manifest.classes)}.")
    return Question(point, manifest.classes.index(target or manifest.positive_class))


def _chosen(objects: str | None) -> set[str]:
    chosen = {part.strip() for part in (objects or "").split(",") if part.strip()}
    if not chosen <= {*OBJECT_KINDS, "fhir", _AUDIT_EVENT}:
        kinds = ", ".join(OBJECT_KINDS)
        raise Refusal("invalid_request", f"objects: there are {kinds}, fhir, {_AUDIT_EVENT}.")
    return chosen
