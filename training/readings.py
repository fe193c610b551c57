"""A bundle reads a manifest the way it is served: same decoding, preprocessing, graphs and
calibration as a request, so that what is measured is what is deployed.

The unit of work is one breast: its images are encoded, each is read alone, and its exams are read
as one series. Logits are kept on disk as they come, so that a stopped run goes on.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.bundle import Bundle, BundleError, Manifest, load_bundle
from app.imaging.decode import decode
from app.imaging.preprocess import PREPROCESSING_VERSION, InputGeometry, preprocess
from app.inference.exams import Exam, slots_and_days
from app.inference.probability import calibrated
from app.inference.sessions import Device, DeviceError, Features, GraphError, Sessions
from app.problems import Refusal
from training import manifest as manifest_module
from training.config import DataConfig
from training.exams import BreastSeries, breast_series
from training.figures import Cases
from training.manifest import LabelledImage, ManifestError
from training.run_folder import RunError, replace

READINGS = "readings.jsonl"
Split = Literal["train", "val", "all"]
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Reading:
    """What the bundle says of a breast: ``image_logits`` float32 [images, classes], every image
    alone; ``step_logits`` float32 [exams, classes], after each exam with its priors."""

    series: BreastSeries
    image_logits: NDArray[np.float32]
    step_logits: NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """A bundle and the images it is to read, checked."""

    bundle: Bundle
    images: tuple[LabelledImage, ...]
    breasts: tuple[BreastSeries, ...]


def check(
    bundle: Path, data: DataConfig, split: Split, seed: int, faults: list[str]
) -> Asked | None:
    """Open a bundle and read what it is asked to read; adds to ``faults`` all that is wrong with
    them, and returns None if anything is."""
    found: list[str] = []
    opened: Bundle | None = None
    images: list[LabelledImage] = []
    breasts: list[BreastSeries] = []
    try:
        opened = _open_bundle(bundle)
    except BundleError as error:
        found.append(str(error))
    try:
        images = manifest_module.read(data.manifest, data.image_root)
        if split != "all":
            images = manifest_module.with_splits(images, data.val_fraction, seed)
            images = [image for image in images if image.split == split]
        manifest_module.classes_of(images, data.positive_class)
        breasts = breast_series(images, data.positive_class)
        if len({breast.positive[-1] for breast in breasts}) < 2:
            found.append(f"{data.manifest}: breasts of both classes are needed in {split}")
    except ManifestError as error:
        found.append(str(error))
    except OSError as error:
        found.append(f"{data.manifest} cannot be read: {error.strerror}")
    faults += found
    return Asked(opened, tuple(images), tuple(breasts)) if opened and not found else None


def _open_bundle(folder: Path) -> Bundle:
    """Load a bundle that this code can run. Raises ``BundleError``."""
    bundle = load_bundle(folder)
    wanted = bundle.manifest.preprocessing.version
    if wanted != PREPROCESSING_VERSION:
        raise BundleError(
            f"{folder} needs preprocessing {wanted}, this code has {PREPROCESSING_VERSION}"
        )
    return bundle


def start_sessions(bundle: Bundle, device: Device) -> Sessions:
    """Sessions of a bundle. Raises ``RunError`` if the device or a graph cannot be used."""
    try:
        return Sessions(bundle.encoder, bundle.head, device=device)
    except (DeviceError, GraphError) as error:
        raise RunError(f"{bundle.folder}: {error}") from None


def read_all(
    run: Path, bundle: Bundle, sessions: Sessions, breasts: Sequence[BreastSeries], data: str
) -> tuple[list[Reading], dict[str, str]]:
    """Read every breast with as many threads as cores; what ``run`` holds already is not read
    again. ``data`` is the fingerprint of the images.

    Returns the readings and, by path, why an image was left out. Raises ``ManifestError`` when
    more than one in twenty cannot be used.
    """
    store = run / READINGS
    source = {"bundle": bundle.sha256, "data": data}
    stored = _stored(store, source)
    lines = [source, *stored.values()]
    replace(store, lambda path: path.write_text("".join(map(_line, lines))))
    total = sum(len(breast.images) for breast in breasts)
    cv2.setNumThreads(1)  # the pool below is the parallelism
    with (
        store.open("a") as file,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        tqdm(total=total, desc="read", unit="image", mininterval=1) as bar,
    ):
        bar.update(sum(len(breasts[i].images) for i in stored))
        waiting = {
            pool.submit(_read, bundle.manifest, sessions, breast): i
            for i, breast in enumerate(breasts)
            if i not in stored
        }
        try:
            for done in as_completed(waiting):
                index = waiting[done]
                stored[index] = {"breast": index, **done.result()}
                file.write(_line(stored[index]))
                file.flush()
                bar.update(len(breasts[index].images))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    left_out = {path: why for found in stored.values() for path, why in found["left_out"].items()}
    if len(left_out) > total / 20:
        listing = "\n".join(f"{path}: {why}" for path, why in left_out.items())
        raise ManifestError(f"{len(left_out)} of {total} images are unusable\n{listing}")
    readings = [
        Reading(
            series,
            np.array(stored[i]["image_logits"], np.float32),
            np.array(stored[i]["step_logits"], np.float32),
        )
        for i, breast in enumerate(breasts)
        if (series := breast.without(stored[i]["left_out"])) is not None
    ]
    return readings, left_out


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _stored(store: Path, source: dict[str, str]) -> dict[int, dict[str, Any]]:
    """What a stopped run of the same bundle and images has read, by breast."""
    found: list[dict[str, Any]] = []
    for line in store.read_text().splitlines() if store.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break  # killed while it wrote
    return {line["breast"]: line for line in found[1:]} if found[:1] == [source] else {}


def _read(manifest: Manifest, sessions: Sessions, breast: BreastSeries) -> dict[str, Any]:
    size = InputGeometry(manifest.input.height, manifest.input.width)
    tensors, left_out = [], {}
    for image in breast.images:
        try:
            pixels, _ = decode(image.path.read_bytes(), _MAX_PIXELS)
            tensors.append(preprocess(pixels, size).tensor)
        except Refusal as refusal:
            left_out[str(image.path)] = f"{refusal.code}: {refusal.detail}"
    kept = breast.without(left_out)
    if kept is None:
        return {"left_out": left_out, "image_logits": [], "step_logits": []}
    features = sessions.encode(np.stack(tensors))
    alone = np.zeros((1, 1), np.int32), np.zeros(1, np.float32)
    image_logits = [
        sessions.read(Features(features.maps[i : i + 1], features.pooled[i : i + 1]), *alone).logits
        for i in range(len(tensors))
    ]
    reading = sessions.read(features, *slots_and_days(_exams(kept)))
    return {
        "left_out": left_out,
        "image_logits": np.stack(image_logits).tolist(),
        "step_logits": reading.step_logits.tolist(),
    }


def _exams(breast: BreastSeries) -> list[Exam]:
    """As ``app.inference.exams.order_exams`` would make them of a request."""
    gaps = [0]
    for before, after in pairwise(breast.dates):
        assert before is not None
        assert after is not None
        gaps.append((after - before).days)
    exams, start = [], 0
    for day, gap, views in zip(breast.dates, gaps, breast.exams, strict=True):
        exams.append(Exam(day, gap, tuple(range(start, start + len(views)))))
        start += len(views)
    return exams


def image_cases(readings: Sequence[Reading], manifest: Manifest) -> Cases:
    """Every image alone."""
    rows = [
        (image, positive)
        for reading in readings
        for exam, positive in zip(reading.series.exams, reading.series.positive, strict=True)
        for image in exam
    ]
    logits = np.concatenate([reading.image_logits for reading in readings])
    return Cases(
        np.array([positive for _, positive in rows], np.int32),
        calibrated(logits, manifest),
        tuple(image.patient_id for image, _ in rows),
        tuple(image.path.name for image, _ in rows),
    )


def breast_cases(readings: Sequence[Reading], manifest: Manifest) -> Cases:
    """Every breast after its last exam, read with its priors; the label is that of the last."""
    return Cases(
        np.array([reading.series.positive[-1] for reading in readings], np.int32),
        calibrated(np.stack([reading.step_logits[-1] for reading in readings]), manifest),
        tuple(reading.series.patient_id for reading in readings),
        tuple(reading.series.name for reading in readings),
    )


def exam_cases(readings: Sequence[Reading], manifest: Manifest) -> Cases:
    """Every patient at one date: the most suspicious of the breasts, each with its priors."""
    probability: dict[tuple[str, date | None], float] = defaultdict(float)
    truth: dict[tuple[str, date | None], bool] = defaultdict(bool)
    for reading in readings:
        after = calibrated(reading.step_logits, manifest)
        for day, positive, p in zip(
            reading.series.dates, reading.series.positive, after, strict=True
        ):
            key = (reading.series.patient_id, day)
            probability[key] = max(probability[key], float(p))
            truth[key] |= positive
    return Cases(
        np.array([truth[key] for key in probability], np.int32),
        np.array(list(probability.values())),
        tuple(patient for patient, _ in probability),
        tuple(f"{patient}-{day}" if day else patient for patient, day in probability),
    )
