"""Reading DICOM attributes that may be absent, empty or garbage: what cannot be read is left out.

Nothing here raises: pydicom converts a value when it is first looked at, and fails then in as many
ways as files are broken.
"""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

# SNOMED CT, and the designators of its predecessors (PS3.16 chapter 8)
_SNOMED = {"SCT", "SRT", "SNM3", "99SDM"}
_PADDING = " \t\r\n\0"  # PS3.5 6.2 pads text with spaces and identifiers with NUL


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """All values without padding, empty ones included; () where there are none."""
    return tuple(
        str(value).strip(_PADDING)
        for value in _values(dataset, keyword)
        if not isinstance(value, bytes | Dataset)
    )


def text(dataset: Dataset, keyword: str) -> str:
    """The only value without padding, or ""."""
    found = texts(dataset, keyword)
    return found[0] if len(found) == 1 else ""


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """All values as code strings, in capitals."""
    return tuple(value.upper() for value in texts(dataset, keyword))


def word(dataset: Dataset, keyword: str) -> str:
    """The only value as a code string, in capitals, or ""."""
    return text(dataset, keyword).upper()


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All values as finite numbers; () if one of them is none."""
    try:
        found = tuple(float(value) for value in _values(dataset, keyword))
    except (TypeError, ValueError):
        return ()
    return found if all(map(math.isfinite, found)) else ()


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence."""
    return tuple(item for item in _values(dataset, keyword) if isinstance(item, Dataset))


def snomed_codes(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The SNOMED codes in a code sequence (PS3.3 8.8), whether SNOMED CT or the older SNOMED-RT."""
    return tuple(
        word(item, "CodeValue")
        for item in items(dataset, keyword)
        if word(item, "CodingSchemeDesignator") in _SNOMED
    )


def _values(dataset: Dataset, keyword: str) -> tuple[Any, ...]:
    try:
        value = dataset[keyword].value
        if value is None:
            return ()
        return tuple(value) if isinstance(value, MultiValue | Sequence | list) else (value,)
    except Exception:  # see the module's docstring
        return ()
