"""A request that is answered, for every operation that reads images and every kind of its body."""

from __future__ import annotations

import base64
import io
import itertools
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.pictures import breast, dicom, encoded, png, sixteen_bit

FILMS = [
    dicom(
        sixteen_bit(breast(300, 200, seed=year)),
        StudyDate=f"{year}0131", AcquisitionDate=f"{year}0131", ImageLaterality="L",
        ViewPosition="CC",
    )
    for year in (2022, 2024)
]  # fmt: skip
PNG = png(breast(300, 200))
_BOUNDARY = "films"
_RELATED = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
_JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """``body`` as schemathesis takes it: bytes, or what it writes as a form or as JSON."""

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


def _archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for place, film in enumerate(FILMS):
            archive.writestr(f"{place}.dcm", film)
    return made.getvalue()


def _related() -> bytes:
    parts = [
        f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + film + b"\r\n"
        for film in FILMS
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


_FILES = {
    "image/png": PNG,
    "image/jpeg": encoded(".jpg", breast(300, 200)),
    "image/tiff": encoded(".tiff", breast(300, 200)),
    "application/dicom": FILMS[0],
    "application/octet-stream": FILMS[1],
}
_BODIES: dict[str, dict[str, Any]] = {
    "/pixels": _FILES,
    "/predict": _FILES
    | {"multipart/form-data": {"file": FILMS[0]}, _JSON: {"file": _base64(FILMS[0])}},
    "/predict/series": {
        "application/dicom": FILMS[0],
        "application/zip": _archive(),
        "multipart/related": _related(),
        "multipart/form-data": {"files": FILMS},
        _JSON: {
            "files": [
                {"name": f"{place}.dcm", "data": _base64(film)} for place, film in enumerate(FILMS)
            ]
        },
    },
}
_ANSWERS = itertools.cycle(
    [
        _JSON,
        "application/fhir+json",
        "application/dicom",
        'multipart/related; type="application/dicom"',
    ]
)


def _tensor(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], **more}]}


def _inferred() -> Iterator[tuple[str, Request]]:
    """In JSON, and with binary data behind it on both ways."""
    yield _JSON, Request(_tensor(data=[_base64(PNG)]))
    element = struct.pack("<I", len(PNG)) + PNG
    described = _tensor(parameters={"binary_data_size": len(element)})
    text = json.dumps(described | {"parameters": {"binary_data_output": True}}).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    yield "application/octet-stream", Request(text + element, length)


_INFERRED = dict(_inferred())


def in_order(path: str, kind: str | None) -> Request | None:
    """For a path of the description and the kind of its body; None where there is no such thing.
    Forms of the answer come in turn."""
    if path.endswith("/infer"):
        return _INFERRED.get(kind or "")
    body = _BODIES.get(path, {}).get(kind or "")
    if body is None:
        return None
    if path == "/pixels":
        return Request(body)
    is_dicom = not (kind or "").startswith("image/")
    headers = {"Accept": next(_ANSWERS) if is_dicom else _JSON}
    if kind == "multipart/related":
        headers["Content-Type"] = _RELATED
    return Request(body, headers, {"gate": "warn"})
