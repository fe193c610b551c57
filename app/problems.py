"""Every way a request can be refused: one table of codes, one exception.

Raised where the fault is known; turned into an RFC 9457 answer in one place, ``app.api.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Problem:
    """One way to be refused: HTTP status, title, and what the caller can do.

    ``left_out`` says that such a file is left out of a study with a note, where an only file would
    be refused: it is no mammogram, or none to be read. A mammogram that cannot be decoded is never
    left out: what is missing may be the cancer.
    """

    status: int
    title: str
    advice: str
    left_out: bool = False


PROBLEMS = MappingProxyType(
    {
        # the request
        "not_found": Problem(404, "No such address", "See /openapi.json for those there are."),
        "method_not_allowed": Problem(405, "Method not allowed", "See /openapi.json."),
        "invalid_request": Problem(422, "The request is not valid", "The detail says where."),
        "invalid_multipart": Problem(
            400, "The multipart body cannot be read", "Send multipart/form-data with a boundary."
        ),
        "broken_archive": Problem(
            400, "The zip archive cannot be read", "Send a zip archive without a password."
        ),
        "invalid_json": Problem(422, "The JSON body is not valid", "The detail says where."),
        "invalid_tensor": Problem(
            422,
            "A tensor is not what the model takes or gives",
            "The detail says where; the metadata of the model has names, types and shapes.",
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
        "unknown_model": Problem(404, "There is no such model", "GET /v1/models lists them."),
        # who may come in
        "login_required": Problem(
            401, "Only for users and keys", "Log in, or send `Authorization: Bearer KEY`."
        ),
        "login_failed": Problem(401, "The login failed", "Check user and password."),
        "login_locked": Problem(
            429, "Too many failed logins", "Try again after the time in Retry-After."
        ),
        "forbidden": Problem(
            403,
            "The key or token is not good for this",
            "Use one with the scope that the detail names.",
        ),
        "csrf_failed": Problem(
            403,
            "The request may come from another site",
            "Send the `csrf` of GET /session as X-CSRF-Token, from the service's own page.",
        ),
        "wrong_host": Problem(
            421,
            "The service is not known by this name",
            "Use 127.0.0.1 or localhost, or set MAMMOSEQ_PUBLIC_URL.",
        ),
        "provider_unreachable": Problem(
            502, "The OpenID provider cannot be reached", "Try again, or log in another way."
        ),
        # limits
        "body_too_large": Problem(
            413, "The request body is too large", "The limit is MAMMOSEQ_MAX_BODY_BYTES."
        ),
        "header_too_large": Problem(
            431, "The request header is too large", "Send fewer or shorter header fields."
        ),
        "slow_body": Problem(
            408, "The request came too slowly", "Send it at once, on a faster connection."
        ),
        "rate_limited": Problem(
            429,
            "Too many requests in a minute",
            "Try again after the time in Retry-After; the limit is MAMMOSEQ_RATE_LIMIT.",
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
        "deadline_exceeded": Problem(
            504, "The deadline has passed", "Allow more time, or send fewer images at a time."
        ),
        # the image
        "empty_file": Problem(422, "The file is empty", "Send the image's bytes.", left_out=True),
        "unsupported_format": Problem(
            415,
            "The file is not an image this service reads",
            "Send PNG, JPEG, TIFF or DICOM.",
            left_out=True,
        ),
        "broken_image": Problem(
            422, "The image cannot be decoded", "The file is damaged or cut short."
        ),
        "several_frames": Problem(
            422,
            "The file holds several images",
            "Send one two-dimensional image per file.",
            left_out=True,
        ),
        "no_pixels": Problem(
            422, "The DICOM file holds no image", "Send an image object.", left_out=True
        ),
        "unsupported_transfer_syntax": Problem(
            415, "The DICOM transfer syntax is not read", "Send another transfer syntax."
        ),
        "unsupported_photometric": Problem(
            422,
            "The DICOM image is not grey",
            "Mammograms are MONOCHROME1 or MONOCHROME2.",
            left_out=True,
        ),
        "unsupported_depth": Problem(
            422, "The pixel depth is not read", "Send 8 or 16 bit unsigned grey."
        ),
        "no_breast_found": Problem(
            422,
            "No breast was found in the image",
            "The image is blank or not a mammogram.",
            left_out=True,
        ),
        # what the header says it is
        "own_result": Problem(
            422,
            "The file is a result of this service",
            "Send the mammogram it was made from.",
            left_out=True,
        ),
        "other_modality": Problem(
            422,
            "The image is of another modality",
            "Send mammograms, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "tomosynthesis": Problem(
            422,
            "The image is part of a tomosynthesis",
            "Send the two-dimensional image, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "for_processing": Problem(
            422,
            "The image is for processing",
            "Send the one for presentation, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "specimen": Problem(
            422,
            "The image shows a specimen",
            "Send whole breasts, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "spot_view": Problem(
            422,
            "The image is a spot compression view",
            "Send views of the whole breast, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "magnification": Problem(
            422,
            "The image is a magnification view",
            "Send views of the whole breast, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "biopsy_view": Problem(
            422,
            "The image was made to guide a biopsy",
            "Send views of the whole breast, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        "contrast_image": Problem(
            422,
            "The image shows contrast medium",
            "Send the low-energy or plain image, or see MAMMOSEQ_ACCEPT.",
            left_out=True,
        ),
        # the quality gate
        "blank_image": Problem(422, "The image is blank", "Send an exposed image.", left_out=True),
        "image_too_small": Problem(
            422,
            "The breast is too small in the image",
            "Send the image at its full resolution.",
            left_out=True,
        ),
        "colour_image": Problem(
            422, "The image is in colour", "Send the grey image itself.", left_out=True
        ),
        "breast_cut_off": Problem(
            422, "The breast is cut off", "Send the whole image, as it was taken.", left_out=True
        ),
        "saturated_image": Problem(
            422, "The image is saturated", "Send it with another window or exposure.", left_out=True
        ),
        "not_a_mammogram": Problem(
            422,
            "The image does not look like a mammogram",
            "Only mammograms are scored.",
            left_out=True,
        ),
        "unfamiliar_image": Problem(
            422,
            "The image is unlike those the model has learned from",
            "The model was not shown to work on such images.",
            left_out=True,
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
        # the study
        "nothing_to_read": Problem(
            422, "No file is a mammogram that can be read", "The detail says why, file by file."
        ),
        # the answer
        "not_acceptable": Problem(
            406,
            "No such form of answer",
            "Accept JSON, application/fhir+json or application/dicom.",
        ),
        "not_dicom": Problem(
            422, "DICOM results need DICOM images", "Ask for JSON, or send DICOM files."
        ),
        # the service
        "not_ready": Problem(
            503, "The service cannot compute", "Another replica may; this one must be restarted."
        ),
        "audit_unavailable": Problem(
            503,
            "The audit log cannot be written",
            "Nothing is answered that is not recorded: see MAMMOSEQ_AUDIT_FILE.",
        ),
        "internal_error": Problem(
            500, "The service failed", "Report it with the request id; nothing was stored."
        ),
    }
)


class Refusal(Exception):
    """A request that is understood to be impossible; ``code`` is a key of ``PROBLEMS``.

    ``detail`` is shown to the caller: it must never quote the content of a file. ``retry_after``
    is the number of seconds after which another try is likely to succeed, where there is one.
    """

    def __init__(self, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
