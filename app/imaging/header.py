"""What a DICOM header says of the image: whether it is a mammogram, of which breast, view and date.

Only dates, numbers and known codes leave this module; any other text might name a patient.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Literal, get_args

from pydicom import uid
from pydicom.dataset import Dataset

from app.imaging.attributes import numbers, text, texts, word, words
from app.imaging.exam_times import exam_times_of
from app.imaging.facts import ImageFacts, Presentation
from app.imaging.spacing import magnification_of, spacing_of
from app.imaging.views import laterality_of, shows_breast, shows_specimen, view_of
from app.problems import Refusal

Unusual = Literal[
    "other_modality", "tomosynthesis", "for_processing", "specimen", "spot_view", "magnification",
    "biopsy_view", "contrast_image",
]  # what is refused unless the operator accepts it  # fmt: skip

# Codes, and a sentence each, of what a reader of the result should know.
WARNINGS = MappingProxyType(
    {
        "modality_not_mg": "The DICOM modality is not MG (mammography).",
        "view_unknown": "The DICOM file does not say which breast or view it is.",
        "laterality_contradictory": "The DICOM file names more than one side; none was taken.",
        "view_contradictory": "The DICOM file names two views; the coded one was taken, if single.",
        "implausible_date": "The DICOM file has a date that cannot be; it was passed over.",
        "implausible_spacing": "The DICOM file has a pixel spacing that cannot be.",
        "synthetic_2d": "The image was probably computed from tomosynthesis, not exposed.",
        "implant": "The breast has an implant.",
        "burned_in_annotation": "Writing is part of the picture; it may name the patient.",
        "other_modality": "The image is not a mammogram by its modality and body part.",
        "tomosynthesis": "The image is part of a tomosynthesis.",
        "for_processing": "The image is for processing, not for presentation.",
        "specimen": "The image shows a specimen.",
        "spot_view": "The image is a spot compression view.",
        "magnification": "The image is a magnification view.",
        "biopsy_view": "The image was made to guide a biopsy.",
        "contrast_image": "The image shows contrast medium, not the plain breast.",
    }
)

_KEY_SALT = os.urandom(16)  # identities are compared within this process and mean nothing outside
_OWN_MANUFACTURER = "MAMMOSEQ"
_MAMMOGRAPHY = {
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
}
_TOMOSYNTHESIS = {
    uid.BreastTomosynthesisImageStorage,
    uid.BreastProjectionXRayImageStorageForPresentation,
    uid.BreastProjectionXRayImageStorageForProcessing,
}
_PRESENTATION_BY_INTENT: dict[str, Presentation] = {
    "FOR PRESENTATION": "for_presentation",
    "FOR PROCESSING": "for_processing",
}
_PRESENTATION_BY_CLASS: dict[str, Presentation] = {
    uid.DigitalMammographyXRayImageStorageForPresentation: "for_presentation",
    uid.BreastProjectionXRayImageStorageForPresentation: "for_presentation",
    uid.DigitalXRayImageStorageForPresentation: "for_presentation",
    uid.DigitalMammographyXRayImageStorageForProcessing: "for_processing",
    uid.BreastProjectionXRayImageStorageForProcessing: "for_processing",
    uid.DigitalXRayImageStorageForProcessing: "for_processing",
}
# Digitised film, CR plates and files that lost their modality: mammograms if of a breast
_FILM_MODALITIES = {"CR", "DX", "RG", "OT", ""}
# Values of Image Type (0008,0008), PS3.3 C.8.11.7.1.4 and C.8.21.6.1.1; makers also write TOMO,
# and TOMO_2D for an image that belongs to a tomosynthesis and may be computed from it
_TOMOGRAPHIC_TYPES = {"TOMO", "TOMOSYNTHESIS", "TOMO_PROJ"}
_SYNTHETIC_TYPES = {"GENERATED_2D", "TOMO_2D"}
_CONTRAST_TYPES = {"SUBTRACTION", "ADDITION", "HIGH_ENERGY"}
_BIOPSY_TYPE = re.compile(r"STEREO_|PREFIRE|POSTFIRE|POSTBIOPSY|POSTMARKER|TOMO_SCOUT")
# What makers call two-dimensional images computed from tomosynthesis
_SYNTHETIC_NAME = re.compile(
    r"\b(C-?VIEW|S-?VIEW|V-?PREVIEW|INSIGHT ?2D|INTELLIGENT ?2D|SYNTHETIC ?2D|SYNTHESI[SZ]ED ?2D)\b"
)
_MAGNIFIED = 1.5  # a breast on the support is magnified by 1.0 to 1.1
_VENDORS = (
    ("hologic", r"HOLOGIC|LORAD"),
    ("ge", r"GE\b|GEMS|GENERAL ELECTRIC"),
    ("siemens", r"SIEMENS"),
    ("fujifilm", r"FUJI"),
    ("philips", r"PHILIPS"),
    ("sectra", r"SECTRA"),
    ("planmed", r"PLANMED"),
    ("giotto", r"GIOTTO|IMS\b|I\.M\.S|INTERNAZIONALE MEDICO"),
    ("metaltronica", r"METALTRONICA"),
    ("agfa", r"AGFA"),
    ("carestream", r"CARESTREAM"),
    ("kodak", r"KODAK|EASTMAN"),
    ("konica", r"KONICA"),
    ("canon", r"CANON|TOSHIBA"),
    ("united_imaging", r"UNITED IMAGING|UIH\b"),
)


def refuse_unless_mammogram(dataset: Dataset, accept: frozenset[Unusual]) -> None:
    """Raise ``Refusal`` for what the model was not made for and ``accept`` does not name.

    Codes: those of ``Unusual``, and ``own_result`` for what this service has made.
    """
    if word(dataset, "Manufacturer") == _OWN_MANUFACTURER:
        raise Refusal("own_result", "The file is a result of this service, not a mammogram.")
    if "PixelData" not in dataset:
        return  # a report or the like: whatever reads the pixels says so
    for kind in _unusual(dataset):
        if kind not in accept:
            raise Refusal(kind, WARNINGS[kind])


def facts_of(dataset: Dataset, rows: int, columns: int) -> ImageFacts:
    """All that is known of an image of this size; what is malformed is unknown."""
    view = view_of(dataset)
    laterality, sides_differ = laterality_of(dataset)
    times = exam_times_of(dataset)
    spacing_mm, spacing_impossible = spacing_of(dataset)
    implant = _implant(dataset, view.modifiers)
    unusual = tuple(_unusual(dataset))
    found = {
        "modality_not_mg": word(dataset, "Modality") != "MG",
        "view_unknown": laterality is None or view.name is None,
        "laterality_contradictory": sides_differ,
        "view_contradictory": view.contradictory,
        "implausible_date": times.implausible,
        "implausible_spacing": spacing_impossible,
        "synthetic_2d": _is_synthetic(dataset),
        "implant": implant is True,
        "burned_in_annotation": word(dataset, "BurnedInAnnotation") == "YES",
        **{kind: kind in unusual for kind in get_args(Unusual)},
    }
    return ImageFacts(
        format="dicom",
        rows=rows,
        columns=columns,
        bits=int(dataset.BitsStored),
        laterality=laterality,
        view=view.name,
        view_modifiers=view.modifiers,
        exam_time=times.exam,
        acquired=times.acquired,
        vendor=_vendor(dataset),
        presentation=_presentation(dataset),
        implant=implant,
        spacing_mm=spacing_mm,
        patient_key=_key(dataset, "PatientID", "IssuerOfPatientID"),
        study_key=_key(dataset, "StudyInstanceUID"),
        instance_key=_key(dataset, "SOPInstanceUID"),
        warnings=tuple((code, WARNINGS[code]) for code, true in found.items() if true),
    )


def _unusual(dataset: Dataset) -> Iterator[Unusual]:
    """Why the model was not made for this image, weightiest first."""
    modifiers = view_of(dataset).modifiers
    tests: dict[Unusual, Callable[[], bool]] = {
        "other_modality": lambda: not _is_mammography(dataset),
        "tomosynthesis": lambda: _is_tomosynthesis(dataset),
        "for_processing": lambda: _presentation(dataset) == "for_processing",
        "specimen": lambda: shows_specimen(dataset),
        "spot_view": lambda: "spot_compression" in modifiers,
        "magnification": lambda: (
            "magnification" in modifiers or magnification_of(dataset) >= _MAGNIFIED
        ),
        "biopsy_view": lambda: any(map(_BIOPSY_TYPE.match, words(dataset, "ImageType"))),
        "contrast_image": lambda: bool(_CONTRAST_TYPES & {*words(dataset, "ImageType")}),
    }
    yield from (kind for kind, holds in tests.items() if holds())


def _is_mammography(dataset: Dataset) -> bool:
    """Modality MG (PS3.3 C.7.3.1.1.1), or one of film and plates with a breast on it."""
    modality = word(dataset, "Modality")
    of_breast = text(dataset, "SOPClassUID") in _MAMMOGRAPHY or shows_breast(dataset)
    return modality == "MG" or (modality in _FILM_MODALITIES and of_breast)


def _is_tomosynthesis(dataset: Dataset) -> bool:
    """A volume, slices or projections, but not the single image computed from them. Some makers
    store slices one by one and tell them by Volumetric Properties (0008,9206) alone."""
    if _is_synthetic(dataset):
        return False
    return (
        word(dataset, "VolumetricProperties") == "VOLUME"
        or text(dataset, "SOPClassUID") in _TOMOSYNTHESIS
        or bool(_TOMOGRAPHIC_TYPES & {*words(dataset, "ImageType")})
    )


def _is_synthetic(dataset: Dataset) -> bool:
    """A two-dimensional image computed from tomosynthesis: Image Type GENERATED_2D (PS3.3
    C.8.11.7.1.4), or the maker's name for it in Series Description (0008,103E)."""
    return _frames(dataset) <= 1 and (
        bool(_SYNTHETIC_TYPES & {*words(dataset, "ImageType")})
        or _SYNTHETIC_NAME.search(word(dataset, "SeriesDescription")) is not None
    )


def _frames(dataset: Dataset) -> float:
    found = numbers(dataset, "NumberOfFrames")
    return found[0] if len(found) == 1 else 1


def _presentation(dataset: Dataset) -> Presentation | None:
    """Presentation Intent Type (0008,0068) and what the SOP class says; for processing if either
    says so (PS3.3 C.8.11.1)."""
    said = {
        _PRESENTATION_BY_INTENT.get(word(dataset, "PresentationIntentType")),
        _PRESENTATION_BY_CLASS.get(text(dataset, "SOPClassUID")),
    }
    if "for_processing" in said:
        return "for_processing"
    return "for_presentation" if "for_presentation" in said else None


def _implant(dataset: Dataset, modifiers: tuple[str, ...]) -> bool | None:
    """Breast Implant Present (0028,1300), YES also where the implant is displaced for the view
    (PS3.3 C.8.21.6)."""
    if "implant_displaced" in modifiers:
        return True
    return {"YES": True, "NO": False}.get(word(dataset, "BreastImplantPresent"))


def _vendor(dataset: Dataset) -> str | None:
    manufacturer = word(dataset, "Manufacturer")
    for name, pattern in _VENDORS:
        if re.search(rf"\b(?:{pattern})", manufacturer):
            return name
    return "other" if manufacturer else None


def _key(dataset: Dataset, *keywords: str) -> str | None:
    """A salted hash of identifying text; None where the first of it is missing.

    Padding and the character set that it was written in (PS3.5 6.1) make no difference, nor do
    the wide digits that some of them have.
    """
    values = [
        unicodedata.normalize("NFKC", "\\".join(texts(dataset, keyword))).strip()
        for keyword in keywords
    ]
    if not values[0]:
        return None
    named = "\0".join(values).encode(errors="surrogatepass")
    return hashlib.sha256(_KEY_SALT + named).hexdigest()[:16]
