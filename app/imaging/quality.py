"""Whether pixels look like a mammogram that can be read: cheap rules, no model.

A mammogram is bright on one side, where the chest wall is, narrows to the nipple and is dark
beyond. The limits lie outside of what nearly all training images showed; ``docs/gate.md`` has the
rate at which each refuses real mammograms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.imaging.display import crop_in
from app.imaging.facts import ImageFacts
from app.imaging.preprocess import ModelInput

_ROWS, _COLUMNS = 64, 40  # of the outline that the shape is read from
_TISSUE = 0.05  # of the breast's grey range: brighter than this is not background
_EDGE = 2  # rows or columns of the outline that count as its edge
_CORNER_ROWS, _CORNER_COLUMNS = 6, 8
_SAMPLED_SIDE = 256  # grey levels are counted on at most so many rows and columns


@dataclass(frozen=True)
class Fault:
    """Why an image should not be scored; ``code`` is a key of ``PROBLEMS``."""

    code: str
    detail: str


@dataclass(frozen=True)
class Limit:
    """What a measure may be: from ``low`` to ``high``, both included."""

    measure: str
    code: str
    detail: str
    low: float = -np.inf
    high: float = np.inf

    def is_broken(self, measures: Mapping[str, float]) -> bool:
        """Whether the measure is outside; one that is not a number is."""
        return not self.low <= measures[self.measure] <= self.high


LIMITS = (
    Limit("grey_range", "blank_image", "The grey values hardly differ.", low=16),
    Limit("colour", "colour_image", "The image is in colour; mammograms are grey.", high=0),
    Limit("rows", "image_too_small", "The breast has too few rows for the model.", low=0.4),
    Limit("columns", "image_too_small", "The breast has too few columns for the model.", low=0.3),
    Limit("grey_levels", "not_a_mammogram", "The image has very few grey levels.", low=32),
    Limit(
        "chest_wall",
        "not_a_mammogram",
        "The bright region does not lie along a side, as a breast does at the chest wall.",
        low=0.6,
    ),
    Limit(
        "widening",
        "not_a_mammogram",
        "The bright region widens away from the chest wall; a breast narrows.",
        high=0.65,
    ),
    Limit(
        "corners",
        "not_a_mammogram",
        "The corners on the nipple's side are bright; beyond a breast it is dark.",
        high=0.45,
    ),
    Limit("gaps", "not_a_mammogram", "The bright region is not in one piece.", high=0.5),
    Limit(
        "nipple_side",
        "breast_cut_off",
        "The breast is cut off on the side away from the chest wall.",
        high=0.5,
    ),
    Limit("top", "breast_cut_off", "The breast is cut off at the top.", high=0.95),
    Limit("bottom", "breast_cut_off", "The breast is cut off at the bottom.", high=0.92),
    Limit("saturated", "saturated_image", "A large part of the breast is plain white.", high=0.25),
)


def faults_of(
    pixels: NDArray[Any], model_input: ModelInput, facts: ImageFacts
) -> tuple[Fault, ...]:
    """All faults of an image; ``pixels`` uint8 or uint16 [rows, columns] as decoded, whole or made
    smaller."""
    measures = measures_of(pixels, model_input, facts)
    return tuple(Fault(x.code, x.detail) for x in LIMITS if x.is_broken(measures))


def measures_of(
    pixels: NDArray[Any], model_input: ModelInput, facts: ImageFacts
) -> dict[str, float]:
    """What ``LIMITS`` limits, by name.

    ``grey_range`` and ``grey_levels`` are numbers of grey values as decoded; ``rows`` and
    ``columns`` those of the breast as parts of the model's; ``colour`` is 1 for an image in colour.
    The others are fractions of an outline of the breast with its chest wall at the left: of an
    edge or corner that is bright, of the height that is gained on the way to the right, of what
    is bright beyond something dark, of the breast at the highest grey value.
    """
    crop = model_input.crop
    height, width, _ = model_input.tensor.shape
    bright = _outline(model_input.tensor)
    part = crop_in(pixels, crop, facts.rows, facts.columns)
    box = _sampled(pixels[part.top : part.top + part.height, part.left : part.left + part.width])
    # several times faster than np.unique: the processor sorts 16 bits with its vectors
    ordered = np.sort(box.astype(np.uint16), axis=None)
    darkest, brightest = int(ordered[0]), int(ordered[-1])
    white = darkest if model_input.inverted else brightest
    tall = bright.mean(axis=0)  # of each column, from the chest wall to the nipple
    beyond = np.logical_or.accumulate(~bright, axis=1)
    far = bright[:, -_CORNER_COLUMNS:]
    return {
        "grey_range": float(brightest - darkest),
        "grey_levels": 1 + np.count_nonzero(np.diff(ordered)),
        "colour": float(any(code == "colour_image" for code, _ in facts.warnings)),
        "rows": crop.height / height,
        "columns": crop.width / width,
        "chest_wall": float(bright[:, :_EDGE].mean()),
        "nipple_side": float(bright[:, -_EDGE:].mean()),
        "top": float(bright[:_EDGE].mean()),
        "bottom": float(bright[-_EDGE:].mean()),
        "corners": float((far[:_CORNER_ROWS].mean() + far[-_CORNER_ROWS:].mean()) / 2),
        "widening": float(np.maximum(np.diff(tall), 0).sum()),
        "gaps": float((bright & beyond).mean()),
        "saturated": float((box == white).mean() / max(bright.mean(), 1 / bright.size)),
    }


def _outline(tensor: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What is breast, bool [_ROWS, _COLUMNS], of float32 [height, width, 1] in [-1, 1]."""
    small = cv2.resize(tensor, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    return np.asarray(small > 2 * _TISSUE - 1)


def _sampled(box: NDArray[Any]) -> NDArray[Any]:
    """Every so many-th row and column: no value that was not there before."""
    rows, columns = (-(-side // _SAMPLED_SIDE) for side in box.shape)
    return box[::rows, ::columns]
