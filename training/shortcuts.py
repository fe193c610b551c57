"""Shortcuts: how far the class can be told without looking at the breast.

Borders, grey histogram, a 16 x 16 thumbnail, the file's size and shape, and every column of the
manifest on its own are given to a plain classifier. What it achieves on patients it has not seen, a
model can achieve too, without having learned anything of the disease (Zech et al., PLOS Medicine
2018, doi 10.1371/journal.pmed.1002683; Roberts et al., Nature Machine Intelligence 2021).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training import metrics
from training.duplicates import thumbnail
from training.manifest import LabelledImage
from training.metrics import Estimate

WARN_ABOVE = 0.55  # the lower end of the AUC's interval
FOLDS = 5
_THUMBNAIL = 16
_HISTOGRAM = 32
_MOST_VALUES = 250  # of a column of words; rarer ones count as unknown


@dataclass(frozen=True)
class Shortcut:
    """What is told from ``name`` alone; ``auc`` None where too few patients are there to tell."""

    name: str
    auc: Estimate | None

    @property
    def warns(self) -> bool:
        return self.auc is not None and self.auc.low > WARN_ABOVE


def oriented(pixels: NDArray[Any], inverted: bool) -> NDArray[Any]:
    """The picture with a dark background, mirrored so that its brighter half is the left one: what
    preprocessing evens out is no shortcut."""
    turned = pixels.max() - pixels if inverted else pixels
    left, right = np.array_split(thumbnail(turned, _THUMBNAIL), 2, axis=1)
    return turned[:, ::-1] if right.sum() > left.sum() else turned


def borders_and_histogram(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Mean and spread of each border strip, and the grey histogram, float32 [40]: of the picture
    scaled to 0..1 by its brightest pixel."""
    grey = thumbnail(pixels, 128) / max(float(pixels.max()), 1.0)
    strips = (grey[:4], grey[-4:], grey[:, :4], grey[:, -4:])
    edges = [value for strip in strips for value in (strip.mean(), strip.std())]
    histogram, _ = np.histogram(grey, bins=_HISTOGRAM, range=(0, 1))
    return np.array([*edges, *(histogram / grey.size)], np.float32)


def small_thumbnail(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """The picture in 16 x 16 pixels, 0..1, float32 [256]."""
    return thumbnail(pixels, _THUMBNAIL).ravel() / np.float32(max(float(pixels.max()), 1.0))


def columns_of(images: Sequence[LabelledImage]) -> dict[str, NDArray[np.float64]]:
    """Every column of the manifest that is neither label nor identity, as numbers [images], NaN for
    unknown; those that hold one value only tell nothing and are left out."""
    texts = {
        "laterality": [image.laterality for image in images],
        "view": [image.view for image in images],
        "exam_date": [
            str(image.exam_date.toordinal()) if image.exam_date else "" for image in images
        ],
    }
    for name in dict.fromkeys(name for image in images for name in image.attributes):
        texts[name] = [image.attributes.get(name, "") for image in images]
    return {name: _as_numbers(column) for name, column in texts.items() if len(set(column)) > 1}


def _as_numbers(column: Sequence[str]) -> NDArray[np.float64]:
    try:
        return np.array([float(text) if text else np.nan for text in column])
    except ValueError:
        common = [text for text, _ in Counter(filter(None, column)).most_common(_MOST_VALUES)]
        numbers = {text: float(i) for i, text in enumerate(sorted(common))}
        return np.array([numbers.get(text, np.nan) for text in column])


def measure(
    name: str,
    features: NDArray[Any],
    truth: NDArray[np.int32],
    patients: Sequence[str],
) -> Shortcut:
    """AUC of gradient boosted trees, which take numbers of any scale or order and gaps, on
    ``features`` [images, n] or [images], cross-validated by patient."""
    features = features.reshape(len(truth), -1)
    fewest = min(len({p for p, t in zip(patients, truth, strict=True) if t == k}) for k in (0, 1))
    if fewest < FOLDS:
        return Shortcut(name, None)
    classifier = HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=min(20, 1 + len(truth) // 20),
        early_stopping=False,
        random_state=0,
    )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    with threadpool_limits(1):  # on a busy machine small trees wait for threads more than they grow
        probability = cross_val_predict(
            classifier, features, truth, groups=patients, cv=folds, method="predict_proba"
        )[:, 1]
    return Shortcut(name, metrics.bootstrap(metrics.auc, truth, probability, patients, draws=1000))
