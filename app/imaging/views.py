"""Which breast a DICOM header says is shown, and from where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.dataset import Dataset

from app.imaging.attributes import items, snomed_codes, word
from app.imaging.facts import Laterality

# PS3.16 CID 4014, SNOMED CT and SNOMED-RT; Y-X1770 and Y-X1771 are of an early edition of it
VIEW_CODES = MappingProxyType(
    {
        "399162004": "CC", "R-10242": "CC",
        "399368009": "MLO", "R-10226": "MLO",
        "399260004": "ML", "R-10224": "ML",
        "399352003": "LM", "R-10228": "LM",
        "399099002": "LMO", "R-10230": "LMO",
        "399192008": "XCCL", "R-1024A": "XCCL", "Y-X1770": "XCCL",
        "399101009": "XCCM", "R-1024B": "XCCM", "Y-X1771": "XCCM",
        "399196006": "FB", "R-10244": "FB",
        "399188001": "SIO", "R-102D0": "SIO",
        "441555000": "ISO", "R-40AAA": "ISO",
    }
)  # fmt: skip
SPECIMEN_CODES = frozenset({"127457009", "G-8310"})  # CID 4014, tissue specimen from breast
# PS3.16 CID 4015
MODIFIER_CODES = MappingProxyType(
    {
        "399161006": "cleavage", "R-102D2": "cleavage",
        "399011000": "axillary_tail", "R-102D1": "axillary_tail",
        "399197002": "rolled_lateral", "R-102D3": "rolled_lateral",
        "399226006": "rolled_medial", "R-102D4": "rolled_medial",
        "414493004": "rolled_inferior", "R-102CA": "rolled_inferior",
        "415670009": "rolled_superior", "R-102C9": "rolled_superior",
        "399209000": "implant_displaced", "R-102D5": "implant_displaced",
        "399163009": "magnification", "R-102D6": "magnification",
        "399055006": "spot_compression", "R-102D7": "spot_compression",
        "399110001": "tangential", "R-102C2": "tangential",
        "442581004": "nipple_in_profile", "R-40AB3": "nipple_in_profile",
        "441752004": "anterior_compression", "P2-00161": "anterior_compression",
        "442593008": "inframammary_fold", "R-40ABE": "inframammary_fold",
        "442580003": "axillary_tissue", "R-40AB2": "axillary_tissue",
    }
)  # fmt: skip
# CID 4015: the names of these two modifiers replace that of the view
_VIEW_OF_MODIFIER = {"cleavage": "CV", "axillary_tail": "AT"}
_VIEWS = frozenset({*VIEW_CODES.values(), *_VIEW_OF_MODIFIER.values()})
_BREAST_SIDES = {
    "80248007": "L", "T-04030": "L", "73056007": "R", "T-04020": "R",
    "63762007": "B", "T-04080": "B",
}  # fmt: skip  # CID 6023
_SIDES = {
    "7771000": "L", "G-A101": "L", "24028007": "R", "G-A100": "R", "51440002": "B", "G-A102": "B",
    **_BREAST_SIDES,
}  # fmt: skip  # CID 244
_BREASTS = {"76752008", "T-04000", *_BREAST_SIDES}  # CID 4013


@dataclass(frozen=True)
class View:
    """``name`` a view such as "CC", ``modifiers`` values of ``MODIFIER_CODES``. ``contradictory``
    when the header names two views."""

    name: str | None
    modifiers: tuple[str, ...]
    contradictory: bool


def view_of(dataset: Dataset) -> View:
    """View Code Sequence (0054,0220), else View Position (0018,5101), which it replaces (PS3.3
    C.8.11.5.1.1), else Patient Orientation (0020,0020), where CBIS-DDSM writes the view.

    Only known codes are taken: any other text might name a patient.
    """
    codes = snomed_codes(dataset, "ViewCodeSequence")
    coded = {VIEW_CODES[code] for code in codes if code in VIEW_CODES}
    modifiers = _modifiers(dataset)
    replacing = [_VIEW_OF_MODIFIER[name] for name in modifiers if name in _VIEW_OF_MODIFIER]
    written = next(
        (
            position
            for keyword in ("ViewPosition", "PatientOrientation")
            if (position := word(dataset, keyword)) in _VIEWS
        ),
        None,
    )
    if len(coded) > 1:
        return View(None, modifiers, contradictory=True)
    contradictory = bool(coded and written and written not in {*coded, *replacing})
    return View(next(iter([*replacing, *coded]), written), modifiers, contradictory)


def laterality_of(dataset: Dataset) -> tuple[Laterality | None, bool]:
    """The breast, and whether the header contradicts itself; both breasts or unpaired is None.

    PS3.3 10.5 and C.7.3.1 want all that is said of laterality to agree, so none of it is trusted
    where it does not.
    """
    sides = set(_sides(dataset))
    if sides == {"L"}:
        return "L", False
    if sides == {"R"}:
        return "R", False
    return None, len(sides) > 1


def shows_specimen(dataset: Dataset) -> bool:
    """Whether it is tissue out of the body (PS3.16 CID 4014, PS3.3 C.7.6.22)."""
    return (
        bool(items(dataset, "SpecimenDescriptionSequence"))
        or bool(
            SPECIMEN_CODES
            & {
                *snomed_codes(dataset, "ViewCodeSequence"),
                *_modifier_codes(dataset),
                *_region_codes(dataset),
            }
        )
        or "SPECIMEN" in (word(dataset, "ViewPosition"), word(dataset, "BodyPartExamined"))
    )


def shows_breast(dataset: Dataset) -> bool:
    """Whether the header names the breast as the body part (PS3.16 annex L, CID 4013)."""
    return word(dataset, "BodyPartExamined") == "BREAST" or bool(
        _BREASTS & {*_region_codes(dataset)}
    )


def _sides(dataset: Dataset) -> Iterator[str]:
    frames = _frame_anatomies(dataset)
    written = [
        word(dataset, "ImageLaterality"),
        word(dataset, "Laterality"),
        *(word(frame, "FrameLaterality") for frame in frames),
    ]
    yield from (side for side in written if side in ("L", "R", "B", "U"))
    for part in (dataset, *frames):
        for region, modifier in (
            ("AnatomicRegionSequence", "AnatomicRegionModifierSequence"),
            ("PrimaryAnatomicStructureSequence", "PrimaryAnatomicStructureModifierSequence"),
        ):
            codes = [*snomed_codes(part, region)]
            for item in (part, *items(part, region)):  # within the region, where it belongs
                codes += snomed_codes(item, modifier)
            yield from (_SIDES[code] for code in codes if code in _SIDES)


def _frame_anatomies(dataset: Dataset) -> list[Dataset]:
    """Items of Frame Anatomy (PS3.3 C.7.6.16.2.8) of an enhanced image."""
    return [
        anatomy
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in items(dataset, groups)
        for anatomy in items(group, "FrameAnatomySequence")
    ]


def _region_codes(dataset: Dataset) -> list[str]:
    return [
        code
        for part in (dataset, *_frame_anatomies(dataset))
        for keyword in ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")
        for code in snomed_codes(part, keyword)
    ]


def _modifier_codes(dataset: Dataset) -> list[str]:
    """View Modifier Code Sequence (0054,0222) stands within the view's item (PS3.3 C.8.11.7);
    some write it beside it."""
    places = (dataset, *items(dataset, "ViewCodeSequence"))
    return [code for place in places for code in snomed_codes(place, "ViewModifierCodeSequence")]


def _modifiers(dataset: Dataset) -> tuple[str, ...]:
    """Names in the order of the table, each once."""
    codes = set(_modifier_codes(dataset))
    return tuple(dict.fromkeys(name for code, name in MODIFIER_CODES.items() if code in codes))
