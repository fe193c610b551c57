"""The verb ``explain-check``: do a bundle's heatmaps show what its scores rest on?

Three checks (``training.explain``), all through the graphs that are served: randomised weights,
deletion and insertion, pointing at lesions of known place. The run folder: ``bundle.json`` (what
was checked), ``answers.npz``, ``similarities.json``, ``curves.json`` and ``cases.json`` (what was
measured; a stopped run goes on after the last of them), ``metrics.json``, plots and examples,
``report.html``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from pydantic import Field

from app.bundle import Bundle, BundleError, load_bundle
from app.imaging.preprocess import PREPROCESSING_VERSION, InputGeometry
from app.inference.sessions import Sessions
from training import breasts as breasts_module
from training import manifest
from training.breasts import Breasts
from training.config import DataConfig, Section, SeriesConfig
from training.explain import perturbation, pointing, randomised
from training.explain.heatmaps import Answers, read_many
from training.explain.perturbation import Curve
from training.explain.plots import plot_examples
from training.explain.pointing import Case, Mass
from training.explain.randomised import Similarity
from training.explain.report import EXAMPLES, Measured, write_report
from training.manifest import LabelledImage, ManifestError
from training.run_folder import RunError, open_run, replace
from training.simulate import read_intervals

_EXAMPLES = 3  # breasts with simulated masses that are shown

Record = TypeVar("Record", Similarity, Curve, Case)


class ExplainConfig(Section):
    """``images`` of the split have their maps compared under ``randomisations`` draws of random
    weights, the encoder's in ``encoder_stages`` groups; ``perturbed`` of the most suspicious ones
    are deleted and inserted in ``steps``, against ``random_orders`` random maps each; ``masses``
    breasts get simulated masses, over up to ``max_exams`` exams. ``busi``: a folder with
    ``images`` and ``masks``, for pointing at as many outlined lesions. ``seed`` also splits a
    manifest that names no splits, so it must be that of the fit."""

    run: Path
    bundle: Path
    cache: Path = Path("runs/cache")
    data: DataConfig
    split: Literal["train", "val"] = "val"
    images: int = Field(64, ge=4)
    randomisations: int = Field(5, ge=2)
    encoder_stages: int = Field(6, ge=1)
    perturbed: int = Field(32, ge=4)
    steps: int = Field(20, ge=4)
    random_orders: int = Field(2, ge=1)
    masses: int = Field(160, ge=4)
    max_exams: int = Field(4, ge=2)
    study_dates: Path = SeriesConfig().study_dates
    busi: Path | None = None
    seed: int = 20261122


def explain_check(config: ExplainConfig) -> Path:
    """Measure, or go on measuring, the heatmaps of a bundle. Returns the run folder."""
    bundle, images, classes = _checked(config)
    folder = open_run(config.run, config)
    _same_bundle(folder, bundle, images)
    cv2.setNumThreads(1)  # the encoder's calls are the parallelism
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    breasts, _ = breasts_module.load(images, classes, size, config.cache)
    answers = _answers(folder, bundle, breasts)
    measured = Measured(
        similarities=_kept(
            folder / "similarities.json",
            Similarity,
            lambda: _compare(config, bundle, breasts, answers),
        ),
        curves=_kept(
            folder / "curves.json", Curve, lambda: _perturb(config, bundle, breasts, answers)
        ),
        cases=_kept(folder / "cases.json", Case, lambda: _point(config, bundle, breasts)),
    )
    examples = list(_masses(config, bundle, breasts, count=_EXAMPLES))
    plot_examples(folder / EXAMPLES, bundle, examples)
    write_report(folder, bundle, measured, config.split)
    return folder


def _checked(config: ExplainConfig) -> tuple[Bundle, list[LabelledImage], tuple[str, ...]]:
    """The bundle, the images of the split and the classes. Raises ``RunError`` with all faults."""
    faults: list[str] = []
    bundle: Bundle | None = None
    images: list[LabelledImage] = []
    classes: tuple[str, ...] = ()
    try:
        bundle = load_bundle(config.bundle)
    except BundleError as error:
        faults.append(str(error))
    try:
        if not config.data.manifest.exists():
            raise ManifestError(f"{config.data.manifest} is missing")
        images = manifest.read(config.data.manifest, config.data.image_root)
        images = manifest.with_splits(images, config.data.val_fraction, config.seed)
        classes = manifest.classes_of(images, config.data.positive_class)
        images = [image for image in images if image.split == config.split]
        if all(image.label == config.data.positive_class for image in images):
            raise ManifestError(
                f"split {config.split!r} has no image that is not {config.data.positive_class!r}"
            )
    except ManifestError as error:
        faults.append(str(error))
    if bundle is not None and bundle.manifest.positive_class != config.data.positive_class:
        faults.append(
            f"the positive class of the bundle is {bundle.manifest.positive_class!r}, that of the "
            f"data {config.data.positive_class!r}"
        )
    if bundle is not None and bundle.manifest.preprocessing.version != PREPROCESSING_VERSION:
        faults.append(f"{config.bundle} was trained with another version of the preprocessing")
    if not config.study_dates.is_file():
        faults.append(f"{config.study_dates} is missing")
    if config.busi is not None and not pointing.outlined_images(config.busi):
        faults.append(f"{config.busi} holds no image under images/ with a mask under masks/")
    if faults or bundle is None:
        raise RunError("\n".join(faults))
    return bundle, images, classes


def _same_bundle(folder: Path, bundle: Bundle, images: Sequence[LabelledImage]) -> None:
    """Note what is measured; raise ``RunError`` if the folder's measurements are of another."""
    facts = {
        "bundle": f"{bundle.manifest.name} {bundle.manifest.version}",
        "sha256": bundle.sha256,
        "data_fingerprint_sha256": manifest.fingerprint(images),
    }
    stored = folder / "bundle.json"
    if stored.exists() and json.loads(stored.read_text()) != facts:
        raise RunError(f"{folder} measured another bundle or other images; name another run")
    replace(stored, lambda path: path.write_text(json.dumps(facts, indent=1)))


def _kept(path: Path, kind: type[Record], measure: Callable[[], list[Record]]) -> list[Record]:
    """The records in ``path``; measured and written first if there is no such file."""
    if not path.exists():
        rows = [asdict(record) for record in measure()]
        replace(path, lambda part: part.write_text(json.dumps(rows)))
    held: list[dict[str, Any]] = json.loads(path.read_text())
    return [kind(**row) for row in held]


def _answers(folder: Path, bundle: Bundle, breasts: Breasts) -> Answers:
    """Every image of the split alone, measured once."""
    stored = folder / "answers.npz"
    if not stored.exists():
        sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
        answers = read_many(sessions, breasts.pixels, bundle.manifest)
        replace(stored, lambda path: np.savez_compressed(path, **vars(answers)))
    with np.load(stored) as held:
        return Answers(held["probability"], held["heatmaps"])


def _compare(
    config: ExplainConfig, bundle: Bundle, breasts: Breasts, answers: Answers
) -> list[Similarity]:
    rng = np.random.default_rng([config.seed, 1])
    mapped = np.flatnonzero(answers.heatmaps.max(axis=(1, 2)) > 0)
    if not len(mapped):
        raise RunError(f"no image of split {config.split!r} gets a heatmap: nothing to check")
    chosen = np.sort(rng.permutation(mapped)[: config.images])
    return randomised.compare(
        bundle,
        breasts.pixels[chosen],
        [breasts.rows[i].path.name for i in chosen],
        [breasts.rows[i].patient_id for i in chosen],
        encoder_stages=config.encoder_stages,
        draws=config.randomisations,
        seed=config.seed,
    )


def _perturb(
    config: ExplainConfig, bundle: Bundle, breasts: Breasts, answers: Answers
) -> list[Curve]:
    patients = [row.patient_id for row in breasts.rows]
    rng = np.random.default_rng([config.seed, 2])
    chosen = perturbation.most_suspicious(
        answers.probability, answers.heatmaps, patients, config.perturbed, rng
    )
    if not chosen:
        raise RunError("none of the most suspicious images gets a heatmap: nothing to delete")
    return perturbation.curves(
        bundle,
        breasts.pixels[chosen],
        answers.heatmaps[chosen],
        [breasts.rows[i].path.name for i in chosen],
        [patients[i] for i in chosen],
        steps=config.steps,
        random_orders=config.random_orders,
        seed=config.seed,
    )


def _point(config: ExplainConfig, bundle: Bundle, breasts: Breasts) -> list[Case]:
    made = _masses(config, bundle, breasts, config.masses)
    cases = pointing.point_at_masses(bundle, made, len(pointing.SIMULATED) * config.masses)
    if config.busi is not None:
        cases += pointing.point_at_outlines(
            bundle, config.busi, count=config.masses, seed=config.seed
        )
    return cases


def _masses(config: ExplainConfig, bundle: Bundle, breasts: Breasts, count: int) -> Iterator[Mass]:
    """The same masses for any ``count``: what is shown is what was measured first."""
    return pointing.masses(
        breasts,
        config.data.positive_class,
        (bundle.manifest.heatmap.rows, bundle.manifest.heatmap.columns),
        count=count,
        max_exams=config.max_exams,
        intervals=read_intervals(config.study_dates),
        seed=config.seed,
    )
