"""Names of what is written: the same reading of the same images has the same UIDs, always.

So storing a result twice replaces it or changes nothing; it never doubles it.
"""

from __future__ import annotations

import hashlib

from app.imaging.attributes import text
from app.render.result import ImageResult, StudyResult

_VERSION_BITS, _VARIANT_BITS = 0xF000 << 64, 0xC000 << 48
_VERSION_8, _VARIANT = 0x8000 << 64, 0x8000 << 48  # a UUID of one's own making (RFC 9562 5.8)


def instance_uid(result: StudyResult, *what: str) -> str:
    """UID of something written of ``result``: ``what`` says what it is, such as "overlay" and the
    UID of the image that it is of. Made of the model, the operating point, the class of the
    heatmaps, the images and the dates of their exams."""
    read = sorted(
        f"{breast.laterality} {exam.date} {_image_key(image)}"
        for breast in result.breasts
        for exam in breast.exams
        for image in exam.images
    )
    return _uid(
        result.bundle_sha256, result.operating_point.name, result.target_class, *read, "", *what
    )


def series_uid(result: StudyResult, study_uid: str, kind: str) -> str:
    """UID of the series of a study that holds the results of one kind by this model."""
    return _uid("series", result.bundle_sha256, study_uid, kind)


def device_uid(result: StudyResult) -> str:
    """UID of the model as the observer of what is reported."""
    return _uid("device", result.bundle_sha256)


def _image_key(image: ImageResult) -> str:
    """The SOP Instance UID; for another format, what was seen in the image."""
    uid = text(image.header, "SOPInstanceUID") if image.header is not None else ""
    return uid or hashlib.sha256(image.heatmap.tobytes()).hexdigest()


def _uid(*parts: str) -> str:
    """A UID that is derived from a UUID (PS3.5 B.2), here of the hash of ``parts``."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(_VERSION_BITS | _VARIANT_BITS) | _VERSION_8 | _VARIANT
    return f"2.25.{number}"
