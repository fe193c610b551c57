"""Cross-validation: the hybrid against its parts, each patient scored by models that never saw it.

Run folder: ``folds/fold-N.csv`` (manifests), ``<architecture>/fold-N`` (a fit each, with
``test_scores.csv`` of the held-out patients), ``metrics.json``, plots, ``report.html``. A stopped
run resumes: folds that have scores are not fitted again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from pydantic import Field, field_validator
from tqdm import tqdm

from app.imaging.preprocess import InputGeometry
from training import breasts, manifest, out_of_fold
from training.breasts import Breasts
from training.config import Section
from training.crossval_page import NOTE, write_page
from training.folds import Fold, k_folds, write_manifest
from training.manifest import LabelledImage
from training.metrics import positive_probability
from training.out_of_fold import OutOfFold
from training.run_folder import open_run, write_metrics
from training.score import score_breasts
from training.subfits import Backend, Changes, FitTable, complete, run_fit

Architecture = Literal["hybrid", "cnn_only", "rnn_only"]
_SCORES = "test_scores.csv"


class CrossvalConfig(Section):
    """``fit``: the tables of a fit config; its ``val_fraction`` is the part of each fold's
    training patients that the epoch is chosen on. The first of ``architectures`` is compared with
    each of the others. The manifest's own split is ignored."""

    run: Path
    backend: Backend | None = None
    folds: int = Field(5, ge=2, le=20)
    architectures: tuple[Architecture, ...] = Field(
        ("hybrid", "cnn_only", "rnn_only"), min_length=1
    )
    seed: int = 20261122
    fit: FitTable

    @field_validator("architectures")
    @classmethod
    def _each_once(cls, names: tuple[Architecture, ...]) -> tuple[Architecture, ...]:
        if len(set(names)) < len(names):
            raise ValueError("an architecture is named twice")
        return names


@dataclass(frozen=True)
class _Data:
    """Every image of the manifest, preprocessed once, and its folds."""

    breasts: Breasts
    positive: int
    folds: list[Fold]


def crossval(config: CrossvalConfig) -> Path:
    """Fit and score every architecture on every fold, or resume. Returns the run folder."""
    data = _prepare(config)
    pieces = [(fold, name) for fold in data.folds for name in config.architectures]
    done = [piece for piece in pieces if (_folder(config, *piece) / _SCORES).exists()]
    with tqdm(total=len(pieces), initial=len(done), desc="crossval", unit="fit") as bar:
        for fold, name in pieces:
            if (fold, name) not in done:
                _fit_and_score(config, data, fold, name)
                bar.update()
    scores: dict[str, OutOfFold] = {
        name: out_of_fold.load(
            {fold.number: _folder(config, fold, name) / _SCORES for fold in data.folds}
        )
        for name in config.architectures
    }
    first, *others = config.architectures
    found: dict[str, Any] = {
        "note": NOTE,
        "positive_class": config.fit.data.positive_class,
        "counts": _counts(data),
        "architectures": {
            name: out_of_fold.figures(of_one) for name, of_one in scores.items()
        },
        "comparisons": [
            {"a": first, "b": other} | out_of_fold.compare(scores[first], scores[other])
            for other in others
        ],
    }  # fmt: skip
    write_metrics(config.run, found)
    write_page(config.run, found, scores)
    return config.run


def _prepare(config: CrossvalConfig) -> _Data:
    """Read and split the data, then open the run; a faulty manifest leaves no run folder."""
    source = config.fit.data
    size = InputGeometry(config.fit.model.height, config.fit.model.width)
    images = manifest.read_checked(
        source.manifest,
        source.image_root,
        classes=source.classes,
        positive_class=source.positive_class,
        sides=(),
        is_known=lambda found: breasts.is_cached(found, size, config.fit.cache),
    )
    classes = manifest.classes_of(images, source.positive_class)
    folds = k_folds(
        images,
        config.folds,
        source.positive_class,
        val_fraction=source.val_fraction,
        seed=config.seed,
    )
    open_run(config.run, config)
    (config.run / "folds").mkdir(exist_ok=True)
    loaded, left_out = breasts.load(images, classes, size, config.fit.cache)
    for fold in folds:
        write_manifest(fold.images, _manifest(config, fold))
        if not breasts.is_cached(fold.images, size, config.fit.cache):
            pixels = _of_patients(loaded, fold.images).pixels
            paths = {str(image.path) for image in fold.images}
            lacking = {path: why for path, why in left_out.items() if path in paths}
            breasts.store(fold.images, size, config.fit.cache, pixels, lacking)
    return _Data(loaded, len(classes) - 1, folds)


def _folder(config: CrossvalConfig, fold: Fold, architecture: str) -> Path:
    return config.run / architecture / f"fold-{fold.number}"


def _manifest(config: CrossvalConfig, fold: Fold) -> Path:
    return config.run / "folds" / f"fold-{fold.number}.csv"


def _fit_and_score(config: CrossvalConfig, data: _Data, fold: Fold, architecture: str) -> None:
    print(f"fold {fold.number} of {config.folds}, {architecture}", flush=True)
    changes: Changes = {
        "data": {"manifest": _manifest(config, fold), "image_root": Path()},
        "model": {"architecture": architecture},
    }
    run = run_fit(
        complete(config.fit, _folder(config, fold, architecture), config.backend, changes)
    )
    test = _of_patients(data.breasts, fold.test)
    model = keras.models.load_model(run / "best.keras")
    _, scores = score_breasts(model, test, data.positive)
    temperature = json.loads((run / "metrics.json").read_text())["calibration"]["temperature"]
    held_out = OutOfFold(
        truth=scores.truth,
        probability=positive_probability(scores.logits, data.positive, temperature),
        fold=np.full(len(scores.truth), fold.number, np.int32),
        patients=scores.patients,
        names=scores.names,
    )
    out_of_fold.save(held_out, run / _SCORES)


def _of_patients(loaded: Breasts, images: Sequence[LabelledImage]) -> Breasts:
    """The part of ``loaded`` that is of the patients of ``images``."""
    patients = {image.patient_id for image in images}
    keep = [i for i, row in enumerate(loaded.rows) if row.patient_id in patients]
    return Breasts(loaded.pixels[keep], tuple(loaded.rows[i] for i in keep), loaded.labels[keep])


def _counts(data: _Data) -> dict[str, int]:
    groups = data.breasts.by_breast()
    return {
        "images": len(data.breasts),
        "breasts": len(groups),
        "positive_breasts": sum(
            int(data.breasts.labels[group[0]] == data.positive) for group in groups
        ),
        "patients": len({row.patient_id for row in data.breasts.rows}),
    }
