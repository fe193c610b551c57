"""Stored values -> grey values as a radiologist sees them.

One order of operations (PS3.4 N.2, PS3.3 C.11.1 and C.11.2), composed into one table with an entry
for every word that pixel data may hold, so that each pixel is looked up once:

1. the stored value of a word: unused bits are dropped, the sign is extended (``stored``);
2. the modality LUT, else rescale slope and intercept;
3. the VOI LUT, else the first window, else the whole range that the stored bits allow;
4. inversion where the Presentation LUT Shape says so, or MONOCHROME1 in its absence;
5. padding becomes background.

Only the header decides: the same stored value has the same grey in every image of a kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue

from app.imaging.stored import Stored, stored_range
from app.imaging.wavelet import Words, centred, low_pass
from app.problems import Refusal


@dataclass(frozen=True)
class _Greys:
    """A value for each word, float64 [256 or 65536]; what they lie between, in how many bits."""

    values: NDArray[np.float64]
    low: float
    high: float
    bits: int


def presented(stored: Stored, dataset: FileDataset) -> Words:
    """Stored values -> grey values [rows, columns] from 0, the background, up: bright is dense.

    Raises ``Refusal`` (``broken_image``) where the header describes no transformation.
    """
    table = grey_table(stored, dataset)
    return stored.words if _changes_nothing(table, stored) else _each(stored.words, table)


@dataclass(frozen=True)
class Ramp:
    """The greys of the stored values that the header allows, from the least to the greatest.

    ``keeps_order`` where no value is darker, or none is brighter, than the one below it: then
    values may be averaged before they are looked up.
    """

    greys: Words
    keeps_order: bool


def grey_ramp(dataset: FileDataset) -> Ramp:
    """The ramp that a header describes. Raises as ``presented`` does."""
    bits, low, high = stored_range(dataset)
    values = np.arange(low, high + 1, dtype=np.int32)
    greys = _table(values, low, high, bits, dataset)
    falls, rises = (greys[1:] < greys[:-1]).any(), (greys[1:] > greys[:-1]).any()
    return Ramp(greys, not (falls and rises))


def reduced(stored: Stored, ramp: Ramp, shrink: int) -> Words:
    """Stored values -> grey values [rows / shrink, columns / shrink], rounded up."""
    ceiling = stored.high - stored.low
    if not ramp.keeps_order:
        table = ramp.greys[stored.values - stored.low]
        brightest = int(ramp.greys.max())
        return centred(low_pass(stored.words, shrink, brightest, table), shrink, brightest)
    smooth: NDArray[Any] = stored.words
    if not stored.halved:
        steps: NDArray[Any] = (stored.values - stored.low).astype(stored.words.dtype)
        changing: Any = None if _changes_nothing(steps, stored) else steps
        smooth = low_pass(stored.words, shrink, ceiling, changing)
    values = centred(smooth, shrink, ceiling)
    padded: NDArray[Any] = np.zeros(1 << 8 * values.dtype.itemsize, ramp.greys.dtype)
    padded[: len(ramp.greys)] = ramp.greys
    return _each(values, padded)


def grey_table(stored: Stored, dataset: FileDataset) -> Words:
    """The grey value, uint8 or uint16 [256 or 65536], of every possible word."""
    return _table(stored.values, stored.low, stored.high, stored.bits, dataset)


def _table(
    stored: NDArray[np.int32], low: int, high: int, bits: int, dataset: FileDataset
) -> Words:
    """The grey value, uint8 or uint16, of each of ``stored`` values."""
    measured = _modality(_Greys(stored.astype(np.float64), low, high, bits), dataset)
    greys = _of_interest(measured, dataset)
    values = greys.high - greys.values if _is_inverse(dataset) else greys.values
    values[_is_padding(stored, low, dataset)] = 0
    whole: NDArray[Any] = np.rint(values)
    return whole.astype(np.uint8) if greys.high < 256 else whole.astype(np.uint16)


def _changes_nothing(table: NDArray[Any], stored: Stored) -> bool:
    used = 1 << stored.bits
    return (
        table.dtype == stored.words.dtype
        and np.array_equal(table[:used], np.arange(used))
        and (used == len(table) or int(stored.words.max()) < used)
    )


def _each(words: Words, table: Words) -> Words:
    greys: Words = cv2.LUT(words, table)  # type: ignore[assignment]
    return greys


def _modality(greys: _Greys, dataset: FileDataset) -> _Greys:
    """Modality LUT or rescale (PS3.3 C.11.1): to values that mean the same on every machine."""
    macro = _macro(dataset, "PixelValueTransformationSequence")
    if macro.get("ModalityLUTSequence"):
        return _look_up(greys, macro.ModalityLUTSequence, dataset)
    slope, intercept = _number(macro, "RescaleSlope"), _number(macro, "RescaleIntercept")
    slope = 1.0 if slope is None else slope
    intercept = intercept or 0.0
    low, high = sorted((greys.low * slope + intercept, greys.high * slope + intercept))
    if not 0 < high - low < math.inf:
        raise Refusal("broken_image", "The rescale slope leaves no difference between greys.")
    return _Greys(greys.values * slope + intercept, low, high, greys.bits)


def _of_interest(greys: _Greys, dataset: FileDataset) -> _Greys:
    """VOI LUT or window (PS3.3 C.11.2): to grey values from 0 to 2 ** n - 1.

    Where there are both, either may be used; the VOI LUT is the manufacturer's own curve. The first
    of several windows is the one that is meant to be seen first.
    """
    macro = _macro(dataset, "FrameVOILUTSequence")
    if macro.get("VOILUTSequence"):
        return _look_up(greys, macro.VOILUTSequence, dataset)
    center, width = _number(macro, "WindowCenter"), _number(macro, "WindowWidth")
    if center is None or width is None:
        ceiling = (1 << greys.bits) - 1.0
        part = (greys.values - greys.low) / (greys.high - greys.low)
        return _Greys(part * ceiling, 0, ceiling, greys.bits)
    bits = 8 if greys.bits <= 8 else 16
    ceiling = (1 << bits) - 1.0
    part = _window(greys.values, center, width, str(macro.get("VOILUTFunction") or "LINEAR"))
    return _Greys(part * ceiling, 0, ceiling, bits)


def _window(
    values: NDArray[np.float64], center: float, width: float, function: str
) -> NDArray[np.float64]:
    """Values -> part, 0 to 1, of the grey range (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if width <= 0 or (width < 1 and function == "LINEAR"):
        raise Refusal("broken_image", "The window is not as wide as a window must be.")
    if function == "SIGMOID":
        steepness = np.clip(-4 * (values - center) / width, -700, 700)
        return np.asarray(1 / (1 + np.exp(steepness)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise Refusal("broken_image", "The VOI LUT function is none that DICOM knows.")
    if width == 0:
        return (values > center).astype(np.float64)
    return np.asarray(((values - center) / width + 0.5).clip(0, 1))


def _look_up(greys: _Greys, items: Any, dataset: FileDataset) -> _Greys:
    """Apply the first of a sequence's LUTs (PS3.3 C.11.1.1.1, C.11.2.1.1)."""
    entries, first, bits = (int(number) for number in items[0].LUTDescriptor)
    entries = entries % 65536 or 65536
    if not 1 <= bits <= 16:
        raise Refusal("broken_image", "A LUT's entries have an impossible depth.")
    # the first value mapped is signed if what it is compared with is, whatever its VR
    if first > 32767 and greys.low < 0:
        first -= 65536
    elif first + entries <= greys.low:
        first += 65536
    table = _lut_data(items[0].LUTData, entries, bits, dataset)
    index = (np.rint(greys.values) - first).clip(0, entries - 1).astype(np.int64)
    bits = max(bits, int(table.max()).bit_length())
    return _Greys(table[index].astype(np.float64), 0, (1 << bits) - 1.0, bits)


def _lut_data(data: Any, entries: int, bits: int, dataset: FileDataset) -> Words:
    """LUT Data (0028,3006), US or OW: one entry a word, or two of 8 bit, the lower one first."""
    if isinstance(data, bytes):
        _, little = dataset.original_encoding
        words = np.frombuffer(data, "<u2" if little else ">u2").astype(np.uint16)
    else:
        words = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(np.uint16)
    table: Words = words
    if len(words) < entries and bits <= 8:
        table = words.astype("<u2").view(np.uint8)
    if len(table) < entries:
        raise Refusal("broken_image", "A LUT is shorter than its descriptor says.")
    return table[:entries]


def _is_inverse(dataset: FileDataset) -> bool:
    """Whether high values are dark. Images for presentation say it twice (PS3.3 C.8.11.3.1.2):
    the Presentation LUT Shape goes before, so that nothing is inverted twice."""
    shape = dataset.get("PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE"):
        return bool(shape == "INVERSE")
    return bool(dataset.PhotometricInterpretation == "MONOCHROME1")


def _is_padding(values: NDArray[np.int32], least: int, dataset: FileDataset) -> NDArray[np.bool_]:
    """Of each value, whether it pads the image to a rectangle (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(len(values), bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    limit = limit if isinstance(limit, int) else value
    if least < 0:  # written as unsigned by some
        value, limit = ((end ^ 0x8000) - 0x8000 if end > 0x7FFF else end for end in (value, limit))
    low, high = min(value, limit), max(value, limit)
    return np.asarray((values >= low) & (values <= high))


def _macro(dataset: FileDataset, name: str) -> Dataset:
    """Where the attributes of a functional group are: a multi-frame object of one frame keeps them
    in a sequence, shared or of the frame (PS3.3 C.7.6.16)."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(groups) or ():
            macro: Sequence[Dataset] = group.get(name) or ()
            if macro:
                return macro[0]
    return dataset


def _number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of a decimal attribute; None if there is none."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise Refusal("broken_image", "A number of the header is not finite.")
    return number
