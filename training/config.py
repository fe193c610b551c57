"""Configurations: one TOML file a verb, checked before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A table of a config: unknown keys are an error, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """``manifest``: a CSV or a folder with one sub-folder per class."""

    manifest: Path
    image_root: Path | None = None
    positive_class: str
    classes: tuple[str, ...] = ()  # labels that may occur; empty: whatever does
    val_fraction: float = Field(0.2, gt=0, lt=1)
    terms: str = "not stated"


class ModelConfig(Section):
    """``architecture``: the hybrid, or a baseline. ``cnn_only`` has no LSTM and reads the last
    exam; ``rnn_only`` has no convolution and reads images row by row. ``blocks`` is the depth of
    the ``paper`` encoder. ``start_from`` is the folder of a finished fit of the same shape whose
    image weights are the start, in place of ImageNet's; ``prune_share`` of its encoder's channels
    are left out (``training.prune``)."""

    architecture: Literal["hybrid", "cnn_only", "rnn_only"] = "hybrid"
    encoder: Literal["paper", "efficientnet_lite0"] = "efficientnet_lite0"
    imagenet_weights: bool = True
    start_from: Path | None = None
    prune_share: float = Field(0.0, ge=0, lt=0.9)
    blocks: int = Field(4, ge=2, le=6)
    height: int = Field(512, ge=64, multiple_of=32)
    width: int = Field(320, ge=64, multiple_of=32)
    features: int = Field(128, ge=1)
    lstm_units: int = Field(64, ge=1)
    lstm_layers: int = Field(1, ge=1, le=4)
    dropout: float = Field(0.3, ge=0, lt=1)
    frozen_until: str = ""

    @model_validator(mode="after")
    def _something_to_prune(self) -> ModelConfig:
        if self.prune_share and self.start_from is None:
            raise ValueError("prune_share needs start_from: a finished fit to prune")
        return self


class MassesConfig(Section):
    """Simulated masses in lesion-free images, to learn where a mass lies and how large it is:
    ``share`` of the images of every batch (0: none), ``weight`` of what they teach beside the
    labels. Adam scales steps by all gradients: where masses weigh much, labels are learned
    slowly."""

    share: float = Field(0.25, ge=0, lt=1)
    weight: float = Field(1.0, ge=0)


class SeriesConfig(Section):
    """Simulated exam series, from which the head learns time once the encoder has learned images.

    ``breasts`` lesion-free training images get a mass (0: no such stage), each encoded at
    ``acquisitions``; as many encoded exams again are of real images, three times as many images.
    ``val_count`` series are for choosing. Series have up to ``max_exams`` exams at the intervals
    of ``study_dates``."""

    study_dates: Path = Path(__file__).parent / "data" / "ea1141_study_dates.csv"
    breasts: int = Field(320, ge=0)
    acquisitions: int = Field(24, ge=12)
    val_count: int = Field(320, ge=8)
    max_exams: int = Field(5, ge=2)
    features: int = Field(64, ge=1)  # by which the model grows to learn time
    lstm_units: int = Field(64, ge=1)
    epochs: int = Field(60, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)  # series never come twice: less is needed


class OptimiserConfig(Section):
    """``class_weights``: ``balanced`` gives every class the same weight. ``balance_within`` names a
    column of the manifest (machine, site): labels are weighted so that the classes are equally
    frequent in each of its groups, and to know the group tells nothing. ``patience``: epochs
    without a better one before training stops (0: never)."""

    kind: Literal["adamw", "sgd"] = "adamw"
    epochs: int = Field(12, ge=1)
    patience: int = Field(0, ge=0)
    images_per_batch: int = Field(16, ge=2)
    head_epochs: int = Field(1, ge=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_epochs: float = Field(0.5, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    balance_within: str = ""
    average_decay: float = Field(0.97, ge=0, lt=1)
    average_every: int = Field(10, ge=1)
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    seed: int = 20261122


class FitConfig(Section):
    """``backend`` of Keras: TensorFlow unless named; the run exports from any of them.
    ``precision`` ``auto`` is mixed where there is a GPU."""

    run: Path
    backend: Literal["tensorflow", "torch", "jax"] | None = None
    cache: Path = Path("runs/cache")
    data: DataConfig
    model: ModelConfig = ModelConfig()
    masses: MassesConfig = MassesConfig()
    series: SeriesConfig = SeriesConfig()
    optimiser: OptimiserConfig = OptimiserConfig()


Config = TypeVar("Config", bound=Section)


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file as a config of one verb. Relative paths are relative to the working
    directory. Raises ``TOMLDecodeError`` or ``ValidationError``, which name the fault."""
    return kind.model_validate(tomllib.loads(path.read_text()))
