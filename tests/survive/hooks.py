"""What schemathesis cannot make of a schema: files that are images, a model that there is, and
whole requests that are answered. It also keeps what was sent and answered."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies

from app.bundle import Manifest
from tests.conftest import newest_bundle
from tests.pictures import real_dicom
from tests.survive.in_order import FILMS, PNG, in_order

KEPT = "DESCRIBED_KEPT"  # environment variable: the file of what was sent and answered
_FILES = strategies.one_of(
    strategies.sampled_from([PNG, FILMS[0], real_dicom("explicit")]), strategies.binary()
)
_MODEL = Manifest.model_validate_json((newest_bundle() / "manifest.json").read_text())
_THERE = {"name": _MODEL.name, "version": _MODEL.version}
_sent: Counter[tuple[str, str | None]] = Counter()

for kind in (
    "image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream",
    "application/zip", "multipart/related",
):  # fmt: skip
    schemathesis.openapi.media_type(kind, _FILES)
schemathesis.openapi.format("binary", _FILES)
schemathesis.openapi.format("base64", _FILES.map(lambda data: base64.b64encode(data).decode()))


@schemathesis.hook
def map_path_parameters(
    context: schemathesis.HookContext, path_parameters: dict[str, Any]
) -> dict[str, Any]:
    """Of three names two are that of the model that is served."""
    if len(str((path_parameters or {}).get("name", ""))) % 3:
        return path_parameters | {key: _THERE[key] for key in path_parameters if key in _THERE}
    return path_parameters


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Of two requests with a body of the same kind, put the first in order."""
    if case.method != "POST":
        return
    kind = (case.path, case.media_type)
    _sent[kind] += 1
    request = in_order(*kind) if _sent[kind] % 2 else None
    if request is None:
        return
    case.body = request.body
    case.query = dict(request.query)
    case.headers = dict(request.headers)
    case.cookies = {}
    case.path_parameters = {key: _THERE[key] for key in case.path_parameters or {}}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Keep method, path, kind of the body, status, kind of the answer."""
    answered = response.headers.get("content-type", [""])[0].partition(";")[0]
    line = [case.method, case.path, case.media_type, response.status_code, answered]
    with Path(os.environ[KEPT]).open("a") as kept:
        kept.write(json.dumps(line) + "\n")
