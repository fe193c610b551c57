"""Test scores of the paper protocol's arms -> accuracy, macro F1 and AUC with intervals.

An arm's figure is the mean over its seeds, each with a split of its own. For the intervals groups
of near duplicates are drawn with replacement, the same ones for all arms and seeds, so that the
difference of two arms has an interval of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics import Estimate

_DRAWS = 2000


@dataclass(frozen=True)
class Arm:
    """One protocol: are masks among the images, and do groups stay on one side of the split?"""

    name: str
    masks: bool
    grouped: bool

    @property
    def key(self) -> str:
        return re.sub("[^a-z]+", "-", self.name)


ARMS = (
    Arm("masks as images, random split", masks=True, grouped=False),
    Arm("masks as images, grouped split", masks=True, grouped=True),
    Arm("images only, random split", masks=False, grouped=False),
    Arm("images only, grouped split", masks=False, grouped=True),
)


@dataclass(frozen=True)
class Files:
    """``labels`` int32 [files], an index into ``classes``; ``groups`` int32 [files], the same
    number for near duplicates and for an image and its mask; ``is_mask`` [files]."""

    labels: NDArray[np.int32]
    groups: NDArray[np.int32]
    is_mask: NDArray[np.bool_]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """An arm trained with one seed. ``train`` and ``test`` int64, indices of files; for those of
    the test ``probability`` [tests, classes], and ``rule`` int32 [tests], the class that a trivial
    rule says; ``loss`` of each epoch."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    probability: NDArray[np.float64]
    rule: NDArray[np.int32]
    loss: NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """A figure for every row of weights, float64 [1 + draws]: first with all groups once."""

    values: NDArray[np.float64]

    def __sub__(self, other: Drawn) -> Drawn:
        return Drawn(self.values - other.values)

    def estimate(self) -> Estimate:
        low, high = np.nanpercentile(self.values[1:], (2.5, 97.5))
        return Estimate(float(self.values[0]), float(low), float(high))


def group_weights(files: Files, seed: int = 0) -> NDArray[np.float64]:
    """How often each group is drawn, [1 + draws, groups]: in the first row each once."""
    count = int(files.groups.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _DRAWS)
    return np.concatenate([np.ones((1, count)), drawn])


def figures(
    files: Files, pieces: Sequence[Piece], weights: NDArray[np.float64]
) -> dict[str, Drawn]:
    """``accuracy``, ``macro_f1`` and ``auc`` (each class against the rest, mean) of one arm."""
    found: dict[str, list[NDArray[np.float64]]] = {"accuracy": [], "macro_f1": [], "auc": []}
    for piece in pieces:
        truth, said = files.labels[piece.test], piece.probability.argmax(axis=1)
        per_file = weights[:, files.groups[piece.test]]
        with np.errstate(invalid="ignore"):  # NaN for a draw that misses a class
            found["accuracy"].append(weighted_accuracy(truth == said, per_file))
            found["macro_f1"].append(weighted_macro_f1(truth, said, per_file))
            found["auc"].append(weighted_auc(truth, piece.probability, per_file))
    return {name: Drawn(np.mean(values, axis=0)) for name, values in found.items()}


def accuracy_on(
    files: Files,
    pieces: Sequence[Piece],
    weights: NDArray[np.float64],
    *,
    masks: bool | None = None,
    rule: bool = False,
) -> Drawn:
    """Accuracy of the model, or of the trivial rule, on the test files that are masks, on those
    that are not, or on all (None)."""
    values = []
    for piece in pieces:
        said = piece.rule if rule else piece.probability.argmax(axis=1)
        right = said == files.labels[piece.test]
        kept = (files.is_mask[piece.test] == masks) | (masks is None)
        with np.errstate(invalid="ignore"):  # NaN for a draw without such files
            per_file = weights[:, files.groups[piece.test[kept]]]
            values.append(weighted_accuracy(right[kept], per_file))
    return Drawn(np.mean(values, axis=0))


def leaked(files: Files, pieces: Sequence[Piece]) -> float:
    """Share of the test files with their mask, their image or a near duplicate in training."""
    return float(
        np.mean([np.isin(files.groups[p.test], files.groups[p.train]).mean() for p in pieces])
    )


def confusion(files: Files, pieces: Sequence[Piece]) -> NDArray[np.int64]:
    """Counts [class, class said] over all seeds."""
    counts = np.zeros((len(files.classes), len(files.classes)), np.int64)
    for piece in pieces:
        np.add.at(counts, (files.labels[piece.test], piece.probability.argmax(axis=1)), 1)
    return counts


def weighted_accuracy(
    right: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For ``right`` [files] and ``weights`` [draws, files], [draws]."""
    return np.asarray(weights @ right / weights.sum(axis=1))


def weighted_macro_f1(
    truth: NDArray[np.int32], said: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the classes of the truth of the harmonic mean of precision and recall, [draws]."""
    scores = []
    for k in np.unique(truth):
        hits = weights @ ((truth == k) & (said == k))
        scores.append(2 * hits / (weights @ (truth == k) + weights @ (said == k)))
    return np.asarray(np.mean(scores, axis=0))


def weighted_auc(
    truth: NDArray[np.int32], probability: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the classes of the area under the ROC curve of one against the rest, [draws]: the
    weighted share of pairs in order, a tie counting half (Mann and Whitney 1947)."""
    scores = []
    for k in np.unique(truth):
        of_class, rest = truth == k, truth != k
        difference = probability[of_class, k][:, None] - probability[rest, k][None, :]
        in_order = (np.sign(difference) + 1) / 2
        won = np.sum((weights[:, of_class] @ in_order) * weights[:, rest], axis=1)
        scores.append(won / (weights[:, of_class].sum(axis=1) * weights[:, rest].sum(axis=1)))
    return np.asarray(np.mean(scores, axis=0))
