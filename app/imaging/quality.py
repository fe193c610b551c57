"""Whether pixels look like a mammogram that can be read: cheap rules, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from app.imaging.preprocess import ModelInput


@dataclass(frozen=True)
class Fault:
    """Why an image should not be scored; ``code`` is a key of ``PROBLEMS``."""

    code: str
    detail: str


def faults_of(pixels: NDArray[Any], model_input: ModelInput) -> tuple[Fault, ...]:
    """All faults of an image; ``pixels`` uint8 or uint16 [rows, columns] as decoded."""
    return ()
