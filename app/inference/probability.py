"""Logits -> probabilities: softmax, temperature, operating point, and each exam's part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle import Manifest
from app.inference.sessions import ExamReading


@dataclass(frozen=True)
class ExamInfluence:
    """Calibrated probability of the positive class once an exam is read, and the change it
    brought. The changes and the probability before any exam add up to the result."""

    probability_after: float
    change: float


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def calibrated(logits: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float64]:
    """Probability of the positive class after temperature scaling (Guo et al., 2017)."""
    return softmax(logits / np.float32(manifest.temperature))[..., manifest.positive_index]


def influences(reading: ExamReading, manifest: Manifest) -> list[ExamInfluence]:
    """What each exam did to the result, in time order."""
    before = calibrated(reading.empty_logits, manifest)
    after = calibrated(reading.step_logits, manifest)  # [exams]
    changes = np.diff(after, prepend=before)
    return [ExamInfluence(float(a), float(c)) for a, c in zip(after, changes, strict=True)]
