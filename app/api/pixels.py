"""``POST /pixels``: the grey pixels of an image, as the model's decoder gives them, for a viewer.

FastAPI describes it; ``app.api.admit`` calls it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from starlette.types import Receive, Scope, Send

from app.api.answers import pixels_answer
from app.api.errors import documented
from app.api.options import PixelOptions
from app.api.uploads import Limits, receive_image
from app.imaging.wavelet import Words
from app.inference.admission import Admission, Admitted
from app.inference.pipeline import Pipeline, Stopwatch
from app.settings import Settings
from app.tracing.spans import span

router = APIRouter()

_PART = 1 << 20  # bytes that are handed to a connection at a time
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_OF_A_FILE = (
    "application/octet-stream",
    "application/dicom",
    "image/png",
    "image/jpeg",
    "image/tiff",
)
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pixels row by row, uint8 or little endian uint16",
        "content": {"application/octet-stream": _BINARY},
        "headers": {
            "Mammoseq-Image": {
                "description": "what the pixels are, as JSON in ASCII",
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/PixelsBody"}}
                },
            }
        },
    }
}


class _InParts(Response):
    """Sent as the client takes it: until then the connection holds no copy of it but a part."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        whole = memoryview(self.body)
        for start in range(0, len(whole), _PART):
            more = start + _PART < len(whole)
            part = whole[start : start + _PART]
            await send({"type": "http.response.body", "body": part, "more_body": more})


@router.post(
    "/pixels",
    response_class=Response,
    responses=_ANSWER
    | documented(
        "invalid_request", "no_file", "body_too_large", "too_many_pixels", "overloaded",
        "deadline_exceeded", "unsupported_format", "broken_image", "several_frames",
        "unsupported_transfer_syntax", "unsupported_photometric", "unsupported_depth", "no_pixels",
        "own_result", "other_modality", "tomosynthesis", "for_processing", "specimen", "spot_view",
        "magnification", "biopsy_view", "contrast_image", "internal_error",
    ),
    openapi_extra={
        "requestBody": {"required": True, "content": dict.fromkeys(_OF_A_FILE, _BINARY)}
    },
)  # fmt: skip
async def pixels(request: Request, options: Annotated[PixelOptions, Query()]) -> Response:
    """Decode one image for a viewer: PNG, JPEG, TIFF or DICOM, as the body. The quality gate does
    not look at it."""
    settings: Settings = request.app.state.settings
    pipeline: Pipeline = request.state.pipeline
    admission: Admission = request.app.state.admission
    admitted: Admitted = request.state.admitted
    turn = admitted.turn
    with span("receive"):
        data = await receive_image(request, Limits(settings.max_body_bytes, files=1))
    watch = Stopwatch()
    shown = await pipeline.run(turn, lambda: pipeline.show(data, options.long_side, turn, watch))
    admission.hold(admitted, shown.words.nbytes)
    described = json.dumps(pixels_answer(shown).model_dump(mode="json"), separators=(",", ":"))
    return _InParts(
        _little_endian(shown.words),
        headers={"Mammoseq-Image": described},
        media_type="application/octet-stream",
    )


def _little_endian(words: Words) -> memoryview:
    """The bytes of words [rows, columns], which are not copied where they lie so already."""
    ordered = words.astype(words.dtype.newbyteorder("<"), order="C", copy=False)
    return ordered.reshape(-1).view(np.uint8).data
