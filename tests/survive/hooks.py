"""What schemathesis cannot make of a schema: files that are images, and whole requests that are
answered, of every kind and with every kind of answer. It also keeps what was sent and answered.

Of two requests that it makes with a body of the same kind, the first is put in order.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies

from tests.pictures import breast, dicom, encoded, png, real_dicom, sixteen_bit

KEPT = "DESCRIBED_KEPT"  # environment variable: the file of what was sent and answered
_FILMS = [
    dicom(
        sixteen_bit(breast(300, 200, seed=year)),
        StudyDate=f"{year}0131", AcquisitionDate=f"{year}0131", ImageLaterality="L",
        ViewPosition="CC",
    )
    for year in (2022, 2024)
]  # fmt: skip
_PNG = png(breast(300, 200))
_BOUNDARY = "films"
_ANSWERS = itertools.cycle(
    [
        "application/json",
        "application/fhir+json",
        "application/dicom",
        'multipart/related; type="application/dicom"',
    ]
)
_FILES = strategies.one_of(
    strategies.sampled_from([_PNG, _FILMS[0], real_dicom("explicit")]), strategies.binary()
)
_seen: Counter[tuple[str, str]] = Counter()

for kind in (
    "image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream",
    "application/zip", "multipart/related",
):  # fmt: skip
    schemathesis.openapi.media_type(kind, _FILES)
schemathesis.openapi.format("binary", _FILES)


def _archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for place, film in enumerate(_FILMS):
            archive.writestr(f"{place}.dcm", film)
    return made.getvalue()


def _related() -> bytes:
    parts = [
        f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + film + b"\r\n"
        for film in _FILMS
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def _named(film: bytes, name: str) -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(film).decode()}


_RAW = {
    "image/png": _PNG,
    "image/jpeg": encoded(".jpg", breast(300, 200)),
    "image/tiff": encoded(".tiff", breast(300, 200)),
    "application/dicom": _FILMS[0],
    "application/octet-stream": _FILMS[1],
    "application/zip": _archive(),
    "multipart/related": _related(),
}
_STRUCTURED: dict[tuple[str, str], Any] = {
    ("/predict", "multipart/form-data"): {"file": _FILMS[0]},
    ("/predict", "application/json"): {"file": base64.b64encode(_FILMS[0]).decode()},
    ("/predict/series", "multipart/form-data"): {"files": _FILMS},
    ("/predict/series", "application/json"): {
        "files": [_named(film, f"{place}.dcm") for place, film in enumerate(_FILMS)]
    },
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Put a request in order."""
    if case.method != "POST" or case.path not in ("/predict", "/predict/series", "/pixels"):
        return
    kind = (case.path, case.media_type or "")
    _seen[kind] += 1
    if _seen[kind] % 2 == 0:
        return
    body = _STRUCTURED.get(kind, _RAW.get(kind[1]))
    if body is None:
        return
    case.body = body
    case.query = {} if case.path == "/pixels" else {"gate": "warn"}
    case.cookies = {}
    case.headers = {}
    if case.path != "/pixels":
        case.headers["Accept"] = (
            "application/json" if kind[1].startswith("image/") else next(_ANSWERS)
        )
    if kind[1] == "multipart/related":
        case.headers["Content-Type"] = (
            f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
        )


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Keep method, path, kind of the body, status, kind of the answer."""
    kinds = response.headers.get("content-type", [""])
    line = [
        case.method,
        case.path,
        case.media_type,
        response.status_code,
        kinds[0].partition(";")[0],
    ]
    with Path(os.environ[KEPT]).open("a") as kept:
        kept.write(json.dumps(line) + "\n")
