"""How the scores of validation were distributed: what scores of today are compared with.

A bundle's ``figures.json`` has the curve of sensitivity against false positive rate, and with it
the share of scores at or above each of its thresholds (docs/decisions/017).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from pydantic import ValidationError

from app.bundle import FIGURES, Bundle, BundleError
from app.figures import Figures, Roc, Unit

BUCKETS = 10


@dataclass(frozen=True)
class Reference:
    """Buckets of calibrated probability, as nearly tenths of the scores of validation as these
    allow. ``edges`` rise; a score at an edge is above it. ``shares`` are one more and sum to 1."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    def bucket_of(self, probability: float) -> int:
        """From 1."""
        return bisect_right(self.edges, probability) + 1


def references_of(bundle: Bundle) -> dict[Unit, Reference]:
    """One for each unit that was measured; empty where the bundle has no figures.

    Raises ``BundleError`` for figures that are none.
    """
    if bundle.figures is None:
        return {}
    try:
        figures = Figures.model_validate_json(bundle.figures)
    except ValidationError:
        raise BundleError(f"{bundle.folder / FIGURES} is not valid") from None
    return {unit: reference_of(roc) for unit, roc in figures.roc.items()}


def reference_of(roc: Roc) -> Reference:
    """The buckets whose edges lie next to the tenths."""
    positive = roc.positives / roc.cases
    above = {
        positive * point.sensitivity + (1 - positive) * point.false_positive_rate: point.threshold
        for point in roc.points
        if point.threshold is not None
    }
    inner = [share for share in above if 0 < share < 1]
    tenths = [k / BUCKETS for k in range(1, BUCKETS)] if inner else []
    cuts = sorted({min(inner, key=lambda share: abs(share - k)) for k in tenths}, reverse=True)
    bounds = [1.0, *cuts, 0.0]
    return Reference(
        edges=tuple(above[cut] for cut in cuts),
        shares=tuple(high - low for high, low in pairwise(bounds)),
    )
