"""Cases -> subgroups by a column of the manifest, and the figures of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import metrics
from training.figures import Cases, Threshold, as_json, counts_of, enough
from training.manifest import LabelledImage
from training.metrics import bootstrap_all

UNKNOWN = "not recorded"
MIXED = "mixed"
_AGE_BANDS = ((50, "under 50"), (60, "50 to 59"), (70, "60 to 69"), (np.inf, "70 and over"))
_MAX_GROUPS = 20


def known_columns(images: Sequence[LabelledImage]) -> set[str]:
    """What subgroups can be made of: view, side, and every further column of the manifest."""
    return {"view", "laterality"}.union(*(image.attributes for image in images))


def value_of(images: Iterable[LabelledImage], column: str) -> str:
    """The value of a column where all images agree, else ``MIXED``."""
    values = {
        getattr(image, column)
        if column in ("view", "laterality")
        else image.attributes.get(column, "")
        for image in images
    }
    return (values.pop() if len(values) == 1 else MIXED) or UNKNOWN


def groups_of(column: str, values: Sequence[str]) -> dict[str, list[int]]:
    """Group -> indices of the cases that have it, in the order of the groups.

    ``age`` is cut into the bands of screening reports. Another column with more than twenty values
    is cut into quarters if it is numeric. Raises ``ValueError`` if it is not.
    """
    special = {UNKNOWN, MIXED}
    plain = sorted({value for value in values if value not in special})
    numbers = _numbers(plain)
    name: Callable[[str], str] = str
    order: Sequence[str] = plain
    if column == "age" and numbers:
        name = lambda value: next(band for end, band in _AGE_BANDS if float(value) < end)  # noqa: E731
        order = [band for _, band in _AGE_BANDS]
    elif len(plain) > _MAX_GROUPS:
        if not numbers:
            raise ValueError(f"{column} has {len(plain)} values: too many for subgroups")
        known = np.array([float(value) for value in values if value not in special])
        name, order = _quarters(known)
    elif numbers:
        order = sorted(plain, key=float)
    found: dict[str, list[int]] = {group: [] for group in (*order, MIXED, UNKNOWN)}
    for index, value in enumerate(values):
        found[value if value in special else name(value)].append(index)
    return {group: indices for group, indices in found.items() if indices}


def _numbers(values: Sequence[str]) -> list[float]:
    """All values as numbers; empty if one is none."""
    try:
        return [float(value) for value in values]
    except ValueError:
        return []


def _quarters(known: NDArray[np.float64]) -> tuple[Callable[[str], str], list[str]]:
    cuts = np.percentile(known, (25, 50, 75))
    ends = [f"{cut:g}" for cut in cuts]
    names = [
        f"under {ends[0]}", f"{ends[0]} to {ends[1]}", f"{ends[1]} to {ends[2]}",
        f"{ends[2]} and over",
    ]  # fmt: skip
    return lambda value: names[int(np.searchsorted(cuts, float(value), "right"))], names


def figures_by_group(
    cases: Cases, groups: Mapping[str, Sequence[int]], point: Threshold
) -> list[dict[str, Any]]:
    """Per group its counts, AUC, and sensitivity and specificity at an operating point; only the
    counts, and null for the rest, where a class has too few cases."""

    def figures(truth: NDArray[np.int32], p: NDArray[np.float64]) -> dict[str, float]:
        counts = metrics.confusion(truth, p, point.threshold)
        return {
            "auc": metrics.auc(truth, p),
            "sensitivity": counts.sensitivity,
            "specificity": counts.specificity,
        }

    rows = []
    for group, indices in groups.items():
        part = cases.chosen(indices)
        found: Mapping[str, Any] = dict.fromkeys(("auc", "sensitivity", "specificity"))
        if enough(part):
            estimates = bootstrap_all(figures, part.truth, part.probability, part.patients)
            found = {name: as_json(estimate) for name, estimate in estimates.items()}
        rows.append({"group": group, **counts_of(part), **found})
    return rows
