"""Configurations: one TOML file a verb, checked before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of a config: unknown keys are an error, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """``manifest``: a CSV or a folder with one sub-folder per class."""

    manifest: Path
    image_root: Path | None = None
    positive_class: str
    val_fraction: float = Field(0.2, gt=0, lt=1)
    terms: str = "not stated"


class ModelConfig(Section):
    encoder: Literal["paper", "efficientnet_lite0"] = "efficientnet_lite0"
    imagenet_weights: bool = True
    height: int = Field(512, ge=64, multiple_of=32)
    width: int = Field(320, ge=64, multiple_of=32)
    features: int = Field(128, ge=1)
    lstm_units: int = Field(64, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    frozen_until: str = ""


class SeriesConfig(Section):
    """Simulated and unchanged series: ``share`` of the images of every batch (0: none)."""

    study_dates: Path = Path(__file__).parent / "data" / "ea1141_study_dates.csv"
    share: float = Field(0.35, ge=0, lt=1)
    unchanged_share: float = Field(0.3, ge=0, le=1)
    max_exams: int = Field(5, ge=2)
    val_count: int = Field(96, ge=8)


class OptimiserConfig(Section):
    epochs: int = Field(12, ge=1)
    images_per_batch: int = Field(16, ge=2)
    head_epochs: int = Field(1, ge=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_epochs: float = Field(0.5, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    average_decay: float = Field(0.97, ge=0, lt=1)
    average_every: int = Field(10, ge=1)
    seed: int = 20261122


class FitConfig(Section):
    run: Path
    cache: Path = Path("runs/cache")
    data: DataConfig
    model: ModelConfig = ModelConfig()
    series: SeriesConfig = SeriesConfig()
    optimiser: OptimiserConfig = OptimiserConfig()


Config = TypeVar("Config", bound=Section)


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file as a config of one verb. Relative paths are relative to the working
    directory. Raises ``TOMLDecodeError`` or ``ValidationError``, which name the fault."""
    return kind.model_validate(tomllib.loads(path.read_text()))
