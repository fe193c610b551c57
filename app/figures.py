"""``figures.json`` of a bundle: what was measured of the model, as data that the page draws.

Made by ``fit``, ``evaluate`` and ``calibrate``, put into the bundle by ``export``, passed through
by the service. Probabilities and thresholds are calibrated, all shares are from 0 to 1, all
intervals are 95 %.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.bundle import OperatingPoint, Precision

MAX_ROC_POINTS = 200
Unit = Literal["image", "breast"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Part):
    """A figure with its interval."""

    value: float
    low: float
    high: float


class RocPoint(_Part):
    """What is reached when everything at or above ``threshold`` is called; with None, nothing."""

    false_positive_rate: float = Field(ge=0, le=1)
    sensitivity: float = Field(ge=0, le=1)
    threshold: float | None


class Roc(_Part):
    """One unit's curve, from the corner where nothing is called to that where everything is."""

    cases: int = Field(ge=2)
    positives: int = Field(ge=1)
    auc: Measured
    points: tuple[RocPoint, ...] = Field(min_length=2, max_length=MAX_ROC_POINTS)


class ReliabilityBin(_Part):
    """``count`` breasts of about one probability: its mean, and in which part cancer was found."""

    probability: float = Field(ge=0, le=1)
    observed: Measured
    count: int = Field(ge=1)


class Subgroup(_Part):
    """``auc`` is None where a class has too few cases."""

    column: str
    group: str
    per: Unit
    positives: int = Field(ge=0)
    cases: int = Field(ge=1)
    auc: Measured | None


class BandPoint(_Part):
    probability: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class CalibrationBand(_Part):
    """Of breasts that are given ``probability``, the interval of the part in which cancer was
    found; from the lowest to the highest probability that the data have."""

    method: str
    points: tuple[BandPoint, ...] = Field(min_length=2)


class Figures(_Part):
    """``measured_on`` counts the cases, ``note`` says what they were used for besides, and
    ``precision`` is that of the graphs that were measured."""

    schema_version: Literal[1] = 1
    measured_on: str
    note: str
    precision: Precision
    prevalence: float = Field(ge=0, le=1)  # of breasts
    roc: dict[Unit, Roc]
    operating_points: tuple[OperatingPoint, ...]
    reliability: tuple[ReliabilityBin, ...]
    subgroups: tuple[Subgroup, ...] = ()
    calibration_band: CalibrationBand
