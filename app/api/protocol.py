"""The Open Inference Protocol, version 2, over HTTP: what it takes and what it answers, with
its extension for binary tensor data. ``docs/open-inference.md`` says what we made of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from app.bundle import DISCLAIMER
from app.imaging.facts import Laterality
from app.inference.pipeline import Gate

Datatype = Literal["BYTES", "FP32"]
# What a model takes, one of the two, and what it gives
IMAGE, PIXELS = "image", "pixels"
OUTPUTS: dict[str, Datatype] = {
    "probabilities": "FP32",
    "calibrated_probability": "FP32",
    "prediction": "BYTES",
    "warnings": "BYTES",
    "heatmap": "FP32",
}
BINARY_DATA = "binary_tensor_data"  # the extension's name
HEADER_LENGTH = "Inference-Header-Content-Length"  # bytes of the JSON, where more follows it

_Count = Annotated[StrictInt, Field(ge=0, le=2**63 - 1)]


class InputParameters(BaseModel):
    binary_data_size: _Count | None = Field(
        None, description="bytes of the tensor behind the JSON, in place of `data`"
    )


class InputIn(BaseModel):
    """A tensor. Shape and values are checked against the model, not here."""

    name: str = Field(json_schema_extra={"enum": [IMAGE, PIXELS]})
    shape: Annotated[list[_Count], Field(max_length=8)]
    datatype: str = Field(json_schema_extra={"enum": ["BYTES", "FP32"]})
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(
        None,
        description="of `image` base64 of each file; of `pixels` numbers row by row, nested or not",
    )


class OutputParameters(BaseModel):
    """What is not known is refused: it would be an answer in another form."""

    model_config = ConfigDict(extra="forbid")
    binary_data: StrictBool | None = Field(None, description="behind the JSON, not in it")
    content_type: str | None = Field(None, description="not looked at")


class OutputIn(BaseModel):
    name: str = Field(json_schema_extra={"enum": list(OUTPUTS)})
    parameters: OutputParameters | None = None


class RequestParameters(BaseModel):
    """What ``/predict`` has in its query. Others are ignored, as there: clients add their own."""

    operating_point: str | None = Field(
        None, description="name of an operating point; the model's default if left out"
    )
    target: str | None = Field(
        None, description="class whose evidence is mapped; the positive one by default"
    )
    gate: Gate | None = Field(
        None,
        description="`warn`: score also what does not look like a mammogram; for research",
    )
    laterality: Laterality | None = Field(
        None, description="the breast, where a file does not say it"
    )
    binary_data_output: StrictBool = Field(
        False, description="all outputs behind the JSON, unless one says otherwise"
    )


class InferIn(BaseModel):
    """The JSON of a request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "42",
                    "parameters": {"operating_point": "balanced"},
                    "inputs": [
                        {
                            "name": "image",
                            "shape": [1],
                            "datatype": "BYTES",
                            "data": ["iVBORw0KGgo="],
                        }
                    ],
                    "outputs": [{"name": "calibrated_probability"}],
                }
            ]
        }
    )
    id: str | None = Field(None, description="comes back with the answer")
    parameters: RequestParameters | None = None
    inputs: list[InputIn] = Field(max_length=8, description="one: `image` or `pixels`")
    outputs: list[OutputIn] | None = Field(
        None, max_length=16, description="those that are wanted; all if left out"
    )


class TensorParameters(BaseModel):
    binary_data_size: int


class TensorBody(BaseModel):
    """A tensor of an answer: ``data`` row by row, or as many bytes behind the JSON as
    ``parameters`` says."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: TensorParameters | None = None
    data: list[float] | list[str] | None = None


class AnswerParameters(BaseModel):
    disclaimer: str = DISCLAIMER
    request_id: str
    model_sha256: str = Field(description="of the bundle's manifest")
    positive_class: str
    target_class: str = Field(description="that the heatmaps are of")
    operating_point: str
    threshold: float = Field(description="of the operating point, on `calibrated_probability`")


class InferAnswer(BaseModel):
    """The JSON of an answer; ``id`` is there if the request had one."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: AnswerParameters
    outputs: list[TensorBody]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]
    disclaimer: str = DISCLAIMER


class TensorMetadata(BaseModel):
    """A tensor; -1 in a shape is any number."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelParameters(BaseModel):
    disclaimer: str = DISCLAIMER
    sha256: str = Field(description="of the bundle's manifest")
    classes: list[str] = Field(description="in the order of `probabilities`")
    positive_class: str
    operating_points: list[str]
    default_operating_point: str
    preprocessing_version: str = Field(description="by which `pixels` must have been made")
    value_range: tuple[float, float] = Field(description="of `pixels`")
    max_images: int = Field(description="in one request")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata] = Field(description="of which a request has one")
    outputs: list[TensorMetadata]
    parameters: ModelParameters


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool
