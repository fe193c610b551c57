"""The verb ``explain-check``: do a bundle's heatmaps show what its scores rest on?

Three checks (``training.explain``), all through the graphs that are served: randomised weights,
deletion and insertion, pointing at lesions of known place. The run folder: ``bundle.json`` (what
was checked), ``answers.npz``, ``similarities.jsonl``, ``curves.jsonl`` and ``cases.jsonl`` (what
was measured, line by line; a stopped run goes on after the last of them), ``metrics.json``, plots
and examples, ``report.html``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

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
from training.explain.journal import measured
from training.explain.perturbation import Curve
from training.explain.plots import plot_examples
from training.explain.pointing import Case, Mass
from training.explain.randomised import Similarity
from training.explain.report import EXAMPLES, Measured, write_report
from training.manifest import LabelledImage, ManifestError
from training.run_folder import RunError, open_run, replace
from training.simulate import read_intervals

_EXAMPLES = 3  # breasts with simulated masses that are shown


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
    found = Measured(
        similarities=_similarities(config, bundle, breasts, answers),
        curves=_curves(config, bundle, breasts, answers),
        cases=_cases(config, bundle, breasts),
    )
    examples = [
        mass
        for index in _lesion_free(config, breasts)[:_EXAMPLES]
        for mass in _masses(config, bundle, breasts, index)
    ]
    plot_examples(folder / EXAMPLES, bundle, examples)
    write_report(folder, bundle, found, config.split)
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


def _answers(folder: Path, bundle: Bundle, breasts: Breasts) -> Answers:
    """Every image of the split alone, measured once."""
    stored = folder / "answers.npz"
    if not stored.exists():
        sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
        answers = read_many(sessions, breasts.pixels, bundle.manifest)
        replace(stored, lambda path: np.savez_compressed(path, **vars(answers)))
    with np.load(stored) as held:
        return Answers(held["probability"], held["heatmaps"])


def _similarities(
    config: ExplainConfig, bundle: Bundle, breasts: Breasts, answers: Answers
) -> list[Similarity]:
    rng = np.random.default_rng([config.seed, 1])
    mapped = np.flatnonzero(answers.heatmaps.max(axis=(1, 2)) > 0)
    if not len(mapped):
        raise RunError(f"no image of split {config.split!r} gets a heatmap: nothing to check")
    chosen = np.sort(rng.permutation(mapped)[: config.images])
    pieces = randomised.comparisons(
        bundle,
        breasts.pixels[chosen],
        [breasts.rows[i].path.as_posix() for i in chosen],
        [breasts.rows[i].patient_id for i in chosen],
        encoder_stages=config.encoder_stages,
        draws=config.randomisations,
        seed=config.seed,
    )
    path = config.run / "similarities.jsonl"
    return measured(path, Similarity, pieces, title="randomise", unit="network")


def _curves(
    config: ExplainConfig, bundle: Bundle, breasts: Breasts, answers: Answers
) -> list[Curve]:
    patients = [row.patient_id for row in breasts.rows]
    rng = np.random.default_rng([config.seed, 2])
    chosen = perturbation.most_suspicious(
        answers.probability, answers.heatmaps, patients, config.perturbed, rng
    )
    if not chosen:
        raise RunError("none of the most suspicious images gets a heatmap: nothing to delete")
    sessions = Sessions(bundle.encoder, bundle.head, device="cpu")

    def measure(index: int) -> list[Curve]:
        return perturbation.curves(
            sessions,
            bundle.manifest,
            breasts.pixels[index],
            answers.heatmaps[index],
            breasts.rows[index].path.as_posix(),
            patients[index],
            steps=config.steps,
            random_orders=config.random_orders,
            seed=[config.seed, 3, index],
        )

    pieces = {f"image {index}": partial(measure, index) for index in chosen}
    path = config.run / "curves.jsonl"
    return measured(path, Curve, pieces, title="delete and insert", unit="image")


def _cases(config: ExplainConfig, bundle: Bundle, breasts: Breasts) -> list[Case]:
    sessions = Sessions(bundle.encoder, bundle.head, device="cpu")

    def at_masses(index: int) -> list[Case]:
        made = _masses(config, bundle, breasts, index)
        return pointing.point_at_masses(sessions, bundle.manifest, made)

    pieces: dict[str, Callable[[], list[Case]]] = {
        f"image {index}": partial(at_masses, index) for index in _lesion_free(config, breasts)
    }
    if config.busi is not None:
        outlined = pointing.outlined_images(config.busi)
        order = np.random.default_rng([config.seed, 5]).permutation(len(outlined))
        for index in order[: config.masses]:
            pieces[f"outlined {index}"] = partial(
                pointing.point_at_outline, sessions, bundle.manifest, *outlined[index]
            )
    return measured(config.run / "cases.jsonl", Case, pieces, title="point", unit="breast")


def _lesion_free(config: ExplainConfig, breasts: Breasts) -> list[int]:
    """The images without cancer, by their label, that get masses; those shown come first."""
    positive = config.data.positive_class
    free = [i for i, row in enumerate(breasts.rows) if row.label != positive]
    order = np.random.default_rng([config.seed, 4]).permutation(free)
    return [int(index) for index in order[: config.masses]]


def _masses(config: ExplainConfig, bundle: Bundle, breasts: Breasts, index: int) -> list[Mass]:
    return pointing.masses(
        breasts.pixels[index],
        breasts.rows[index],
        (bundle.manifest.heatmap.rows, bundle.manifest.heatmap.columns),
        max_exams=config.max_exams,
        intervals=read_intervals(config.study_dates),
        seed=[config.seed, 4, index],
    )
