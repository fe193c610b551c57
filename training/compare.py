"""Bundles side by side: size, speed and accuracy, each against the first, as they are served.

What a variant costs is a difference on the same images, so every difference is paired: AUC by a
bootstrap that draws the same patients for both, time by turns on the same processor, heatmaps and
probabilities image by image.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from app.bundle import ENCODER, Bundle, BundleError, Manifest, load_bundle
from app.imaging.preprocess import PREPROCESSING_VERSION, InputGeometry, to_tensor
from app.inference.probability import calibrated
from app.inference.sessions import Features, GraphError, Sessions
from training import breasts as breasts_module
from training import manifest, metrics
from training.agreement import Readings, agreement, heatmap_correlation
from training.breasts import Breasts
from training.compare_page import write_comparison
from training.config import DataConfig, Section
from training.manifest import LabelledImage, ManifestError
from training.metrics import bootstrap
from training.run_folder import RunError, open_run, replace, write_metrics

_WARM_UP = 3
_ALONE = (np.zeros((1, 1), np.int32), np.zeros(1, np.float32))


class CompareConfig(Section):
    """``bundles``: folders, the first is what the others are compared with. ``rounds`` of timing,
    in each of which every bundle reads one image."""

    run: Path
    cache: Path = Path("runs/cache")
    bundles: tuple[Path, ...] = Field(min_length=2)
    data: DataConfig
    split: Literal["train", "val", "all"] = "val"
    rounds: int = Field(100, ge=10)
    seed: int = 20261122


@dataclass(frozen=True)
class Times:
    """Of one image, in every round, float64 [rounds]: seconds that passed, and seconds that the
    processor worked. The latter does not depend on who else uses the machine."""

    wall: NDArray[np.float64]
    processor: NDArray[np.float64]


def compare(config: CompareConfig) -> Path:
    """Compare the bundles that ``config`` names. Returns the run folder.

    Raises ``RunError`` with everything that is wrong before anything is read.
    """
    bundles, images = _check(config)
    open_run(config.run, config)
    cv2.setNumThreads(1)
    sessions = [_sessions(bundle) for bundle in bundles]
    sets = [_breasts(images, bundle.manifest, config.cache) for bundle in bundles]
    readings = [
        _readings(config.run, *parts) for parts in zip(bundles, sessions, sets, strict=True)
    ]
    tensors = [to_tensor(breasts.pixels[:1]) for breasts in sets]
    times = measure_times(sessions, tensors, config.rounds)
    found = [
        {
            **_facts(bundle),
            **_speed(mine, times[0]),
            **_accuracy(mine_read, readings[0], sets[0], bundle.manifest.positive_class),
            **_calls(mine_read, readings[0], bundle.manifest, bundles[0].manifest),
            **agreement(mine_read, readings[0]),
        }
        for bundle, mine, mine_read in zip(bundles, times, readings, strict=True)
    ]
    result = {
        "note": "as served, on this machine's CPU, one thread; the first bundle is the reference; "
        "95 % intervals by patient",
        "split": config.split,
        "images": len(sets[0]),
        "breasts": len(readings[0].breast),
        "rounds": config.rounds,
        "fingerprint_sha256": manifest.fingerprint(images),
        "bundles": found,
    }
    write_metrics(config.run, result)
    write_comparison(
        config.run,
        result,
        [reading.image for reading in readings],
        [heatmap_correlation(reading.heatmaps, readings[0].heatmaps) for reading in readings],
    )
    return config.run


def _check(config: CompareConfig) -> tuple[list[Bundle], list[LabelledImage]]:
    """Load all bundles and the manifest. Raises ``RunError`` with every fault at once."""
    faults: list[str] = []
    bundles: list[Bundle] = []
    for folder in config.bundles:
        try:
            bundles.append(load_bundle(folder))
        except BundleError as error:
            faults.append(str(error))
    for bundle in bundles:
        wanted, positive = bundle.manifest.preprocessing.version, bundle.manifest.positive_class
        if wanted != PREPROCESSING_VERSION:
            faults.append(
                f"{bundle.folder} needs preprocessing {wanted}, this is {PREPROCESSING_VERSION}"
            )
        if positive != config.data.positive_class:
            faults.append(
                f"{bundle.folder}: its positive class is {positive!r}, the data's "
                f"{config.data.positive_class!r}"
            )
    if len({bundle.sha256 for bundle in bundles}) < len(bundles):
        faults.append("a bundle is named twice")
    images: list[LabelledImage] = []
    try:
        images = manifest.read(config.data.manifest, config.data.image_root)
        images = manifest.with_splits(images, config.data.val_fraction, config.seed)
        images = [image for image in images if config.split in ("all", image.split)]
        manifest.classes_of(images, config.data.positive_class)
        if len({image.label == config.data.positive_class for image in images}) < 2:
            faults.append(f"{config.split} holds no image of another class")
    except ManifestError as error:
        faults.append(str(error))
    except OSError as error:
        faults.append(f"{config.data.manifest} cannot be read: {error.strerror}")
    if faults:
        raise RunError("\n".join(faults))
    return bundles, images


def _sessions(bundle: Bundle) -> Sessions:
    try:
        return Sessions(bundle.encoder, bundle.head, device="cpu")
    except GraphError as error:
        raise RunError(f"{bundle.folder}: {error}") from None


def _breasts(images: Sequence[LabelledImage], of: Manifest, cache: Path) -> Breasts:
    size = InputGeometry(of.input.height, of.input.width)
    classes = sorted({image.label for image in images})
    return breasts_module.load(images, classes, size, cache)[0]


def _readings(run: Path, bundle: Bundle, sessions: Sessions, breasts: Breasts) -> Readings:
    """Read everything, or find it in the run folder."""
    pixels = hashlib.sha256(breasts.pixels.tobytes()).hexdigest()
    stored = run / f"readings-{bundle.sha256[:12]}-{pixels[:12]}.npz"
    if not stored.exists():
        found = asdict(read(bundle.manifest, sessions, breasts))

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **found)

        replace(stored, write)
    with np.load(stored) as arrays:
        return Readings(**{name: arrays[name] for name in arrays.files})


def read(of: Manifest, sessions: Sessions, breasts: Breasts) -> Readings:
    """Read every image alone, and every breast with all its images as views of one exam."""
    images = np.zeros((len(breasts), len(of.classes)), np.float32)  # logits
    heatmaps = np.zeros((len(breasts), of.heatmap.rows, of.heatmap.columns), np.float32)
    together = []
    title = f"read {of.name} {of.version}"
    with tqdm(total=len(breasts), desc=title, unit="image", mininterval=2) as bar:
        for indices in breasts.by_breast():
            each = [sessions.encode(to_tensor(breasts.pixels[i : i + 1])) for i in indices]
            for i, features in zip(indices, each, strict=True):
                alone = sessions.read(features, *_ALONE)
                images[i], heatmaps[i] = alone.logits, alone.heatmaps[0, 0, of.positive_index]
            whole = Features(
                np.concatenate([features.maps for features in each]),
                np.concatenate([features.pooled for features in each]),
            )
            slots = np.arange(len(each), dtype=np.int32)[np.newaxis]
            together.append(sessions.read(whole, slots, np.zeros(1, np.float32)).logits)
            bar.update(len(each))
    return Readings(calibrated(images, of), calibrated(np.stack(together), of), heatmaps)


def measure_times(
    sessions: Sequence[Sessions], tensors: Sequence[NDArray[np.float32]], rounds: int
) -> list[Times]:
    """Time each bundle on one image (encoder and head), by turns, so that what disturbs the machine
    disturbs all alike. ``tensors``: the image for each, float32 [1, height, width, 1]."""
    passed = np.zeros((len(sessions), rounds + _WARM_UP, 2))
    for turn in tqdm(range(rounds + _WARM_UP), "time", unit="round", mininterval=2):
        for place in range(len(sessions)):
            which = (place + turn) % len(sessions)  # none is always first
            before = time.perf_counter(), time.thread_time()
            sessions[which].read(sessions[which].encode(tensors[which]), *_ALONE)
            after = time.perf_counter(), time.thread_time()
            passed[which, turn] = np.subtract(after, before)
    return [Times(times[_WARM_UP:, 0], times[_WARM_UP:, 1]) for times in passed]


def _facts(bundle: Bundle) -> dict[str, Any]:
    of = bundle.manifest
    total = sum((bundle.folder / name).stat().st_size for name in of.files)
    return {
        "name": of.name,
        "version": of.version,
        "sha256": bundle.sha256,
        "precision": of.precision,
        "encoder_bytes": (bundle.folder / ENCODER).stat().st_size,
        "total_bytes": total,
    }


def _speed(mine: Times, reference: Times) -> dict[str, Any]:
    """Medians over the rounds; the ratio is of processor time, round by round, with the range that
    holds 90 % of the rounds."""
    ratio = mine.processor / reference.processor
    low, middle, high = np.percentile(ratio, (5, 50, 95))
    return {
        "latency_ms": float(np.median(mine.wall) * 1000),
        "processor_ms": float(np.median(mine.processor) * 1000),
        "time_ratio": {"value": float(middle), "low": float(low), "high": float(high)},
    }


def _accuracy(
    mine: Readings, reference: Readings, breasts: Breasts, positive: str
) -> dict[str, Any]:
    first = [indices[0] for indices in breasts.by_breast()]
    found: dict[str, Any] = {}
    for unit, rows, score, other in (
        ("breast", [breasts.rows[i] for i in first], mine.breast, reference.breast),
        ("image", list(breasts.rows), mine.image, reference.image),
    ):
        truth = np.array([row.label == positive for row in rows], np.int32)
        patients = [row.patient_id for row in rows]
        found[f"auc_per_{unit}"] = asdict(bootstrap(metrics.auc, truth, score, patients))
        both = np.stack([score, other], axis=1)
        found[f"auc_change_per_{unit}"] = asdict(bootstrap(_change_of_auc, truth, both, patients))
    return found


def _change_of_auc(truth: NDArray[np.int32], both: NDArray[np.float64]) -> float:
    return metrics.auc(truth, both[:, 0]) - metrics.auc(truth, both[:, 1])


def _calls(
    mine: Readings, reference: Readings, manifest_: Manifest, other: Manifest
) -> dict[str, Any]:
    """Share of breasts that are called otherwise, each bundle at its default operating point."""
    called = [
        reading.breast >= point.threshold
        for reading, of in ((mine, manifest_), (reference, other))
        if (point := of.operating_point(None)) is not None
    ]
    return {"calls_changed": float(np.mean(called[0] != called[1]))}
