"""What the API answers and what it takes, as pydantic models: the OpenAPI description."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.bundle import DISCLAIMER
from app.imaging.facts import Laterality, Presentation
from app.inference.models import Role

ObjectKind = Literal["sr", "sc", "seg"]
# Written into reports and below pictures: nothing longer, and no other text
ViewIn = Annotated[str, Field(pattern="^[A-Z]{2,4}$")]


class ModelIdentity(BaseModel):
    name: str = Field(examples=["mammoseq-rsna"])
    version: str = Field(examples=["0.1.0"])
    sha256: str = Field(description="of the bundle's manifest, and thereby of every file in it")
    preprocessing_version: str = Field(examples=["1"])


class OperatingPointBody(BaseModel):
    name: str = Field(examples=["balanced"])
    threshold: float = Field(description="on the calibrated probability", examples=[0.36])
    sensitivity: float = Field(examples=[0.7])
    specificity: float = Field(examples=[0.7])
    measured_on: str = Field(description="the data that sensitivity and specificity come from")


class Prediction(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    label: str = Field(
        alias="class",
        description="the positive class if at or above the threshold",
        examples=["malignant"],
    )
    operating_point: OperatingPointBody


class Position(BaseModel):
    """A position in original pixels, counted from 0 at the centre of the first pixel; in mm from
    the same place where the spacing of the pixels is known."""

    row: float
    column: float
    row_mm: float | None
    column_mm: float | None


class BoxBody(BaseModel):
    """A box in original pixels, counted from the top left corner of the image; in mm from the same
    place where the spacing of the pixels is known."""

    top: float
    left: float
    height: float
    width: float
    top_mm: float | None
    left_mm: float | None
    height_mm: float | None
    width_mm: float | None


class Picture(BaseModel):
    media_type: Literal["image/png", "image/jpeg"]
    height: int
    width: int
    data: str = Field(description="base64")


class HeatmapBody(BaseModel):
    """Grad-CAM: where the evidence for ``target_class`` lies. It is not a lesion outline."""

    target_class: str
    peak: Position | None = Field(description="null where the map is zero everywhere")
    box: BoxBody | None = Field(
        description="around the peak and what joins it at half of its value or more"
    )
    maximum: float = Field(description="largest value of this map, in logit per cell")
    scale: float = Field(
        description="the value drawn as full colour: the largest of all maps in the answer"
    )
    map: Picture | None = Field(description="the map on its native grid, 8-bit grey PNG")
    map_to_original: list[list[float]] = Field(
        description="affine [2][3]: (column, row, 1) of map cells to (column, row) of the image"
    )
    overlay: Picture | None = Field(description="the map over the mammogram")


class FactsBody(BaseModel):
    """What a file says of its image, and how large that is."""

    format: str = Field(examples=["dicom"])
    rows: int
    columns: int
    bits: int
    laterality: Laterality | None
    view: str | None
    view_modifiers: list[str]
    exam_date: date | None
    vendor: str | None = Field(description="of a closed list, or `other`")
    presentation: Presentation | None
    implant: bool | None
    spacing_mm: tuple[float, float] | None = Field(
        description="between rows and between columns; null where the file does not say"
    )


class ImageBody(FactsBody):
    crop: dict[str, int | bool] = Field(
        description="the part the model saw, original pixels, and whether it was mirrored"
    )
    inverted: bool = Field(description="the background was bright: the grey scale was inverted")


class WarningBody(BaseModel):
    code: str
    detail: str


class DicomObject(BaseModel):
    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    data: str = Field(description="base64 of a DICOM file")


class _Envelope(BaseModel):
    request_id: str
    disclaimer: str = DISCLAIMER
    model: ModelIdentity


class _Outputs(BaseModel):
    dicom: list[DicomObject] = Field(description="asked for with `objects`")
    fhir: dict[str, Any] | None = Field(description="FHIR R4 Bundle, asked for with `objects`")
    timings_ms: dict[str, float]


class _Reading(BaseModel):
    probabilities: dict[str, float] = Field(
        description="by class, as the model gives them",
        examples=[{"no_cancer": 0.4, "malignant": 0.6}],
    )
    calibrated_probability: float = Field(
        description="of the positive class after temperature scaling, at the prevalence of the "
        "calibration data"
    )
    positive_class: str
    prediction: Prediction
    warnings: list[WarningBody]


class PredictAnswer(_Outputs, _Reading, _Envelope):
    image: ImageBody
    heatmap: HeatmapBody


class SeriesImage(BaseModel):
    index: int = Field(
        description="place of the file in the request, from 0; files in zip archives are counted "
        "in the order of the archive"
    )
    image: ImageBody
    heatmap: HeatmapBody


class ExamBody(BaseModel):
    exam_date: date | None
    days_since_previous: int
    calibrated_probability_after: float = Field(
        description="of the positive class when the series ends with this exam"
    )
    change: float = Field(
        description="how much this exam moved the calibrated probability; the changes and "
        "`calibrated_probability_before_any_exam` add up to `calibrated_probability`"
    )
    images: list[SeriesImage]


class _SeriesReading(_Reading):
    calibrated_probability_before_any_exam: float
    exams: list[ExamBody] = Field(description="in time order")


class SeriesAnswer(_Outputs, _SeriesReading, _Envelope):
    """The answer for a series that was described: one breast."""


class BreastBody(_SeriesReading):
    laterality: Laterality | None = Field(description="null if no file says it: one is assumed")


class IgnoredBody(BaseModel):
    """A file that was left out: no mammogram, a copy, or an older image of the same view."""

    index: int = Field(description="place of the file in the request, from 0")
    code: str
    detail: str


class StudyAnswer(_Outputs, _Envelope):
    """The answer for the files of a patient: an entry per breast."""

    breasts: list[BreastBody]
    ignored: list[IgnoredBody]


class SeriesExamIn(BaseModel):
    """One exam of a series. ``files`` are names of file parts."""

    model_config = ConfigDict(extra="forbid")
    date: date
    files: Annotated[list[str], Field(min_length=1)]
    views: Annotated[list[ViewIn], Field(max_length=16)] | None = None


class SeriesIn(BaseModel):
    """The ``series`` part of a multipart request."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "laterality": "L",
                    "exams": [
                        {"date": "2023-03-01", "files": ["prior.png"]},
                        {"date": "2025-03-12", "files": ["current.png"]},
                    ],
                }
            ]
        },
    )
    laterality: Laterality | None = None
    exams: Annotated[list[SeriesExamIn], Field(min_length=1)]


class FileIn(BaseModel):
    """``POST /predict`` as JSON."""

    model_config = ConfigDict(extra="forbid", val_json_bytes="base64")
    file: bytes = Field(
        description="one PNG, JPEG, TIFF or DICOM file", json_schema_extra={"format": "base64"}
    )


class NamedFileIn(BaseModel):
    model_config = ConfigDict(extra="forbid", val_json_bytes="base64")
    name: str = Field("", description="what `series` calls the file; not needed without it")
    data: bytes = Field(json_schema_extra={"format": "base64"})


class FilesIn(BaseModel):
    """``POST /predict/series`` as JSON."""

    model_config = ConfigDict(extra="forbid")
    files: Annotated[list[NamedFileIn], Field(min_length=1)]
    series: SeriesIn | None = None


class TrainedOnBody(BaseModel):
    images: int
    breasts: int
    patients: int


class ModelDescription(BaseModel):
    """One model in service."""

    name: str
    version: str
    roles: list[Role] = Field(
        description="`default` answers requests that name no model, but for the share of the "
        "`canary`; `on_request` answers those that name it; `shadow` answers none"
    )
    sha256: str
    classes: list[str]
    positive_class: str
    preprocessing_version: str
    operating_points: list[OperatingPointBody]
    default_operating_point: str
    provider: str = Field(description="ONNX Runtime execution provider really in use")
    intended_use: str
    trained_on: TrainedOnBody | None = Field(description="null where the bundle does not say")
    terms: str | None = Field(description="of the data that it was trained on")


class ModelList(BaseModel):
    disclaimer: str = DISCLAIMER
    models: list[ModelDescription]


class PixelsBody(BaseModel):
    """``Mammoseq-Image``, the header of an answer of ``/pixels``."""

    rows: int = Field(description="of the pixels that are answered")
    columns: int
    bits: Literal[8, 16] = Field(description="of each pixel; 16 are little endian")
    image: FactsBody
    low: int = Field(description="grey value to show as black, white if `inverted`")
    high: int = Field(description="grey value to show as white, black if `inverted`")
    inverted: bool = Field(
        description="the background is bright: the model sees the grey scale turned, and so "
        "should a reader"
    )
    warnings: list[WarningBody]


class StateBody(BaseModel):
    """What the service has done since its start, all processes together. What it does a second
    is the difference of two answers."""

    version: str
    model: str = Field(examples=["mammoseq-rsna/0.2.2"])
    provider: str = Field(description="ONNX Runtime execution provider really in use")
    processes: int
    workers: int = Field(description="threads of each process that compute")
    uptime_seconds: float
    in_flight: int = Field(description="requests being worked on")
    requests: int = Field(
        description="with images, that were answered, refused ones among them; those to other "
        "addresses do not count"
    )
    images: int = Field(description="looked at by a model, or remembered from before")
    busy_seconds: float = Field(description="that workers have computed; one second each at most")
