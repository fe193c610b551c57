"""What schemathesis cannot make of a schema: files that are images, files that are none, a model
that there is, and tensors that are what they say."""

from __future__ import annotations

import base64
from typing import Any

import schemathesis
from hypothesis import strategies

from app.bundle import Manifest
from tests.conftest import newest_bundle
from tests.pictures import breast, dicom, png, real_dicom, sixteen_bit

_IMAGES = (png(breast(300, 200)), dicom(sixteen_bit(breast(300, 200))), real_dicom("explicit"))
_FILES = strategies.one_of(strategies.sampled_from(_IMAGES), strategies.binary())

for kind in (
    "image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream",
):  # fmt: skip
    schemathesis.openapi.media_type(kind, _FILES)
schemathesis.openapi.format("binary", _FILES)
schemathesis.openapi.format("base64", _FILES.map(lambda data: base64.b64encode(data).decode()))

_MODEL = Manifest.model_validate_json((newest_bundle() / "manifest.json").read_text())
_THERE = {"name": _MODEL.name, "version": _MODEL.version}
_TENSOR = {
    "name": "image",
    "datatype": "BYTES",
    "shape": [1],
    "data": [base64.b64encode(_IMAGES[0]).decode()],
}


@schemathesis.hook
def map_path_parameters(
    context: schemathesis.HookContext, path_parameters: dict[str, Any]
) -> dict[str, Any]:
    """Of three names two are that of the model that is served."""
    if len(str((path_parameters or {}).get("name", ""))) % 3:
        return path_parameters | {key: _THERE[key] for key in path_parameters if key in _THERE}
    return path_parameters


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Where one tensor is sent, it is an image."""
    inferred = context.operation is not None and context.operation.path.endswith("/infer")
    if inferred and isinstance(body, dict) and len(body.get("inputs") or ()) == 1:
        return {"inputs": [_TENSOR]} | {key: body[key] for key in ("id",) if key in body}
    return body
