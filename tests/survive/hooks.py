"""What schemathesis cannot make of a schema: files that are images, and files that are none."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies

from tests.pictures import breast, dicom, png, real_dicom, sixteen_bit

_IMAGES = (png(breast(300, 200)), dicom(sixteen_bit(breast(300, 200))), real_dicom("explicit"))
_FILES = strategies.one_of(strategies.sampled_from(_IMAGES), strategies.binary())

for kind in (
    "image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream",
):  # fmt: skip
    schemathesis.openapi.media_type(kind, _FILES)
schemathesis.openapi.format("binary", _FILES)
