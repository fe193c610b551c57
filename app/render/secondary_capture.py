"""Overlays -> Secondary Capture images, for viewers that show nothing but pictures.

What the picture shows is written below it, in the picture. JPEG baseline: every viewer decodes it,
and it is some thirty times smaller than plain RGB. The original stays beside it for reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from app.bundle import DISCLAIMER
from app.imaging.display import placed
from app.render import dicom
from app.render.heatmap import draw_overlay
from app.render.result import CAPTURE_LONG_SIDE, StudyResult
from app.render.uids import instance_uid

_NARROWEST = 640  # a smaller picture gets black sides, so that its text can be read
_QUALITY = 90
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LETTER = 1 / 64  # of the width: height of a capital letter
_FONT_HEIGHT = 22  # pixels of a capital letter at scale 1
_WHITE = (255, 255, 255)


def secondary_captures(result: StudyResult) -> list[bytes]:
    """The overlay of each image of the newest exam as a DICOM file, in the order of the request.

    Raises ``NoStudyError``.
    """
    return [
        _capture(result, stored, number)
        for number, stored in enumerate(dicom.current_images(result), 1)
    ]


def _capture(result: StudyResult, stored: dicom.Stored, number: int) -> bytes:
    picture = _captioned_overlay(result, stored)
    data = _jpeg(picture)
    dataset = dicom.new_object(
        result,
        "overlay",
        sop_class=SecondaryCaptureImageStorage,
        # not MG: a workstation would hang it as a mammogram, and this service would read it
        modality="OT",
        instance=instance_uid(result, "overlay", stored.reference.instance),
        number=number,
        transfer_syntax=JPEGBaseline8Bit,
    )
    dicom.describe_image(dataset, stored, "\r\n".join(_caption(result, stored)))
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = (
        f"Grad-CAM of the class {dicom.short(result.target_class)} over the image. {DISCLAIMER}"
    )
    dataset.SourceImageSequence = [dicom.source_image(stored.reference)]
    ratios, methods = dicom.lossy_history(stored.header)
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = [*ratios, f"{picture.nbytes / len(data):.1f}"]
    dataset.LossyImageCompressionMethod = [*methods, "ISO_10918_1"]
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PlanarConfiguration = 0
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = encapsulate([data])
    dataset["PixelData"].VR = "OB"
    dicom.refer(dataset, [stored.reference])
    return dicom.written(dataset)


def _caption(result: StudyResult, stored: dicom.Stored) -> list[str]:
    """What is written below the picture, without the disclaimer."""
    breast, point = stored.breast, result.operating_point
    side = dicom.SIDES[stored.laterality]
    seen = " ".join(filter(None, (side, stored.image.facts.view)))
    day = stored.exam.date.isoformat() if stored.exam.date else "date unknown"
    reached = "at or above" if breast.positive else "below"
    exams = len(breast.exams)
    return [
        f"{seen}, {day}, read with {exams} exam{'s' if exams > 1 else ''}",
        f"Probability of {result.manifest.positive_class}, this breast: "
        f"{100 * breast.probability:.1f} %, {reached} {100 * point.threshold:.1f} % "
        f"(operating point {point.name})",
        f"Colour: evidence for {result.target_class} (Grad-CAM). Model {result.manifest.name} "
        f"{result.manifest.version}, sha256 {result.bundle_sha256[:16]}",
    ]


def _captioned_overlay(result: StudyResult, stored: dicom.Stored) -> NDArray[np.uint8]:
    """The overlay with its text below, uint8 [height, width, blue green red]."""
    image = stored.image
    assert image.shown is not None
    size = image.facts.rows, image.facts.columns
    shown, box = placed(image.shown, image.crop, size, CAPTURE_LONG_SIDE)
    overlay = draw_overlay(shown, image.heatmap, box, scale=stored.breast.scale)
    width = max(_NARROWEST, overlay.shape[1])
    left = (width - overlay.shape[1]) // 2
    right = width - overlay.shape[1] - left
    framed = cv2.copyMakeBorder(overlay, 0, 0, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    text = _text_band([*_caption(result, stored), DISCLAIMER], width)
    return np.vstack([framed, text])


def _text_band(lines: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Black band with white text, uint8 [height, width, 3]; long lines are broken."""
    letter = max(10, round(width * _LETTER))
    scale, thickness = letter / _FONT_HEIGHT, max(1, round(letter / 10))
    margin, step = letter, round(letter * 1.9)
    broken = [
        part for line in lines for part in _broken(line, width - 2 * margin, scale, thickness)
    ]
    band = np.zeros((margin + step * len(broken), width, 3), np.uint8)
    for number, text in enumerate(broken):
        place = (margin, margin + letter + step * number)
        cv2.putText(band, text, place, _FONT, scale, _WHITE, thickness, cv2.LINE_AA)
    return band


def _broken(text: str, width: int, scale: float, thickness: int) -> list[str]:
    lines = [""]
    for word in text.encode("ascii", "replace").decode().split():  # all that the font has
        longer = f"{lines[-1]} {word}".strip()
        if cv2.getTextSize(longer, _FONT, scale, thickness)[0][0] <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _jpeg(picture: NDArray[Any]) -> bytes:
    """JPEG baseline with the halved colour columns that YBR_FULL_422 stands for."""
    done, data = cv2.imencode(
        ".jpg",
        picture,
        [
            cv2.IMWRITE_JPEG_QUALITY,
            _QUALITY,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
        ],
    )
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG")
    return data.tobytes()
