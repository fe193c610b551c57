"""Images of a patient, as a PACS holds them -> the exams of each breast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.imaging.facts import Laterality
from app.inference.exams import Exam, Sent, check_dated, check_one_patient, in_time_order
from app.problems import Refusal


@dataclass(frozen=True)
class Breast:
    """The exams of one breast in time order; ``laterality`` is None if no image says it."""

    laterality: Laterality | None
    exams: tuple[Exam, ...]


@dataclass(frozen=True)
class Ignored:
    """A file of the request that was left out, and why."""

    index: int
    code: str
    detail: str


def group_by_breast(sent: Sequence[Sent]) -> tuple[tuple[Breast, ...], tuple[Ignored, ...]]:
    """Group images by breast and exam; of duplicates the newest is kept.

    Raises ``Refusal``: ``no_exam_date``, ``mixed_patients``.
    """
    check_one_patient(sent)
    check_dated(sent)
    kept, ignored = _without_copies(sent)
    kept, older = _without_older(kept)
    kept, sideless = _with_side(kept)
    by_side: dict[Laterality | None, list[Sent]] = defaultdict(list)
    for image in kept:
        by_side[image.laterality].append(image)
    breasts = [Breast(side, in_time_order(by_side[side])) for side in sorted(by_side, key=str)]
    return tuple(breasts), tuple(sorted([*ignored, *older, *sideless], key=lambda i: i.index))


def _without_copies(sent: Sequence[Sent]) -> tuple[list[Sent], list[Ignored]]:
    """Leave out files that were sent twice, as the same bytes or the same DICOM instance."""
    kept: list[Sent] = []
    ignored: list[Ignored] = []
    seen: dict[str, int] = {}
    for image in sent:
        keys = [key for key in (image.content_key, image.facts.instance_key) if key is not None]
        first = next((seen[key] for key in keys if key in seen), None)
        if first is None:
            kept.append(image)
            seen |= dict.fromkeys(keys, image.index)
        else:
            ignored.append(
                Ignored(image.index, "duplicate_image", f"The same image as file {first}.")
            )
    return kept, ignored


def _without_older(sent: Sequence[Sent]) -> tuple[list[Sent], list[Ignored]]:
    """Of images of the same view in the same exam, keep an exposed one rather than one computed
    from tomosynthesis, and the one taken last.

    Where the files do not tell which that is, all of them are read: views are averaged.
    """
    same: dict[object, list[Sent]] = defaultdict(list)
    for image in sent:
        view = image.view or f"unknown {image.index}"
        key = (image.exam_date, image.laterality, view, image.facts.view_modifiers)
        same[key].append(image)
    ignored = [note for images in same.values() for note in _superseded(images)]
    left_out = {note.index for note in ignored}
    return [image for image in sent if image.index not in left_out], ignored


def _superseded(images: Sequence[Sent]) -> list[Ignored]:
    exposed = [image for image in images if not _is_synthetic(image)]
    ignored: list[Ignored] = []
    if 0 < len(exposed) < len(images):
        ignored = [
            Ignored(image.index, "synthetic_image", f"File {exposed[0].index} is the exposed view.")
            for image in images
            if _is_synthetic(image)
        ]
        images = exposed
    times = [image.facts.acquired for image in images if image.facts.acquired is not None]
    if len(times) == len(images):
        newest = max(times)
        last = next(image.index for image in images if image.facts.acquired == newest)
        ignored += [
            Ignored(image.index, "older_image", f"File {last} shows the same view, taken later.")
            for image, time in zip(images, times, strict=True)
            if time < newest
        ]
    return ignored


def _is_synthetic(image: Sent) -> bool:
    return any(code == "synthetic_2d" for code, _ in image.facts.warnings)


def _with_side(sent: Sequence[Sent]) -> tuple[list[Sent], list[Ignored]]:
    """Leave out images of an unknown breast, unless all are: then one breast is assumed."""
    if all(image.laterality is None for image in sent):
        return list(sent), []
    return [image for image in sent if image.laterality], [
        Ignored(image.index, "breast_unknown", "The file does not say which breast it shows.")
        for image in sent
        if image.laterality is None
    ]


def raise_if_none_left(images: int, ignored: Sequence[Ignored]) -> None:
    """Raise ``Refusal`` when every file was left out: for the reason of an only file, else
    ``nothing_to_read`` with all reasons."""
    if images:
        return
    if len(ignored) == 1:
        raise Refusal(ignored[0].code, ignored[0].detail)
    reasons = "; ".join(f"{note.index} {note.code}" for note in ignored)
    raise Refusal("nothing_to_read", f"No file is a mammogram that can be read: {reasons}.")
