"""Every way a request can be refused: one table of codes, one exception.

Raised where the fault is known; turned into an RFC 9457 answer in one place, ``app.api.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Problem:
    """One way to be refused: HTTP status, title, and what the caller can do."""

    status: int
    title: str
    advice: str


PROBLEMS = MappingProxyType(
    {
        # the request
        "not_found": Problem(404, "No such address", "See /openapi.json for those there are."),
        "method_not_allowed": Problem(405, "Method not allowed", "See /openapi.json."),
        "invalid_request": Problem(422, "The request is not valid", "The detail says where."),
        "invalid_multipart": Problem(
            400, "The multipart body cannot be read", "Send multipart/form-data with a boundary."
        ),
        "no_file": Problem(400, "No image was sent", "Send the image as body or as a file part."),
        "several_files": Problem(
            400, "More than one image was sent", "Use POST /predict/series for several images."
        ),
        "invalid_series": Problem(
            422, "The series description is not valid", "See the example of the `series` part."
        ),
        "unknown_file": Problem(
            422, "The series names a file that was not sent", "File names must match exactly."
        ),
        "undescribed_file": Problem(
            422, "A file is not in any exam of the series", "List every file, or leave it out."
        ),
        "ambiguous_file_name": Problem(
            422, "Two files have the same name", "Give each file part a name of its own."
        ),
        "unknown_operating_point": Problem(
            422, "The model has no such operating point", "GET /v1/models lists them."
        ),
        "unknown_class": Problem(
            422, "The model has no such class", "GET /v1/models lists the classes."
        ),
        # limits
        "body_too_large": Problem(
            413, "The request body is too large", "The limit is MAMMOSEQ_MAX_BODY_BYTES."
        ),
        "too_many_pixels": Problem(
            413, "The image has too many pixels", "The limit is MAMMOSEQ_MAX_PIXELS."
        ),
        "too_many_exams": Problem(
            422, "The series has too many exams", "The limit is MAMMOSEQ_MAX_EXAMS."
        ),
        "too_many_images": Problem(
            413, "The series has too many images", "The limit is MAMMOSEQ_MAX_IMAGES."
        ),
        "overloaded": Problem(
            429, "The service is busy", "Try again after the time in Retry-After."
        ),
        # the image
        "empty_file": Problem(422, "The file is empty", "Send the image's bytes."),
        "unsupported_format": Problem(
            415, "The file is not an image this service reads", "Send PNG, JPEG, TIFF or DICOM."
        ),
        "broken_image": Problem(
            422, "The image cannot be decoded", "The file is damaged or cut short."
        ),
        "several_frames": Problem(
            422, "The file holds several images", "Send one two-dimensional image per file."
        ),
        "no_pixels": Problem(422, "The DICOM file holds no image", "Send an image object."),
        "unsupported_transfer_syntax": Problem(
            415, "The DICOM transfer syntax is not read", "Send another transfer syntax."
        ),
        "unsupported_photometric": Problem(
            422, "The DICOM image is not grey", "Mammograms are MONOCHROME1 or MONOCHROME2."
        ),
        "unsupported_depth": Problem(
            422, "The pixel depth is not read", "Send 8 or 16 bit unsigned grey."
        ),
        "no_breast_found": Problem(
            422, "No breast was found in the image", "The image is blank or not a mammogram."
        ),
        # the quality gate
        "blank_image": Problem(422, "The image is blank", "Send an exposed image."),
        "image_too_small": Problem(
            422, "The breast is too small in the image", "Send the image at its full resolution."
        ),
        "colour_image": Problem(422, "The image is in colour", "Send the grey image itself."),
        "breast_cut_off": Problem(
            422, "The breast is cut off", "Send the whole image, as it was taken."
        ),
        "saturated_image": Problem(
            422, "The image is saturated", "Send it with another window or exposure."
        ),
        "not_a_mammogram": Problem(
            422, "The image does not look like a mammogram", "Only mammograms are scored."
        ),
        "unfamiliar_image": Problem(
            422,
            "The image is unlike those the model has learned from",
            "The model was not shown to work on such images.",
        ),
        # the series
        "no_exam_date": Problem(
            422, "An exam has no date", "Give a date in the series, or send DICOM with one."
        ),
        "duplicate_exam_date": Problem(
            422, "Two exams have the same date", "Put images of one day into one exam."
        ),
        "mixed_patients": Problem(
            422, "The images are of more than one patient", "Send one patient per request."
        ),
        "mixed_breasts": Problem(
            422, "The images are of both breasts", "Send one breast per request."
        ),
        "duplicate_image": Problem(422, "An image was sent twice", "Send each image once."),
        # the service
        "internal_error": Problem(
            500, "The service failed", "Report it with the request id; nothing was stored."
        ),
    }
)


class Refusal(Exception):
    """A request that is understood to be impossible; ``code`` is a key of ``PROBLEMS``.

    ``detail`` is shown to the caller: it must never quote the content of a file.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
