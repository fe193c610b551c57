"""Manifest -> preprocessed breasts in memory, through the service's own imaging, cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.imaging.decode import decode
from app.imaging.preprocess import PREPROCESSING_VERSION, InputGeometry, crop_breast
from app.problems import Refusal
from training.manifest import LabelledImage, ManifestError

_MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Breasts:
    """Preprocessed images with what the manifest says of them.

    ``pixels`` uint8 [images, height, width]; ``rows`` the manifest row of each; ``labels`` int32
    [images], an index into the classes.
    """

    pixels: NDArray[np.uint8]
    rows: tuple[LabelledImage, ...]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def of_split(self, split: str) -> Breasts:
        keep = [i for i, row in enumerate(self.rows) if row.split == split]
        return Breasts(self.pixels[keep], tuple(self.rows[i] for i in keep), self.labels[keep])

    def by_breast(self) -> list[list[int]]:
        """Indices of the images of each breast at one exam: same patient, side and date.

        Where the side is unknown, different labels are different breasts."""
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, row in enumerate(self.rows):
            key = (row.patient_id, row.laterality, str(row.exam_date), row.label)
            groups[key].append(index)
        return list(groups.values())


def load(
    images: Sequence[LabelledImage], classes: Sequence[str], size: InputGeometry, cache: Path
) -> tuple[Breasts, dict[str, str]]:
    """Decode and preprocess every image; reuse ``cache`` when nothing changed.

    Returns the breasts and, by path, why an image was left out (blank, for instance). Raises
    ``ManifestError`` when more than one in twenty could not be used.
    """
    key = _cache_key(images, size)
    stored, index = cache / f"{key}.npy", cache / f"{key}.json"
    if stored.exists() and index.exists():
        left_out: dict[str, str] = json.loads(index.read_text())
        pixels = np.load(stored)
    else:
        pixels, left_out = _preprocess_all(images, size)
        store(images, size, cache, pixels, left_out)
    rows = tuple(image for image in images if str(image.path) not in left_out)
    labels = np.array([classes.index(row.label) for row in rows], np.int32)
    return Breasts(pixels, rows, labels), left_out


def store(
    images: Sequence[LabelledImage],
    size: InputGeometry,
    cache: Path,
    pixels: NDArray[np.uint8],
    left_out: Mapping[str, str],
) -> None:
    """Put into ``cache`` what ``load`` would find out of ``images``: ``pixels`` uint8 [used,
    height, width] of those that are not in ``left_out``."""
    key = _cache_key(images, size)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(cache / f"{key}.npy", pixels)
    (cache / f"{key}.json").write_text(json.dumps(left_out, indent=1))


def is_cached(images: Sequence[LabelledImage], size: InputGeometry, cache: Path) -> bool:
    """Whether ``load`` would find these images, as they are now, in ``cache``."""
    return (
        all(image.path.is_file() for image in images)
        and (cache / f"{_cache_key(images, size)}.npy").exists()
    )


def _cache_key(images: Sequence[LabelledImage], size: InputGeometry) -> str:
    facts = [(str(image.path), image.path.stat().st_mtime_ns) for image in images]
    text = json.dumps([PREPROCESSING_VERSION, size.height, size.width, facts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _preprocess_all(
    images: Sequence[LabelledImage], size: InputGeometry
) -> tuple[NDArray[np.uint8], dict[str, str]]:
    cv2.setNumThreads(1)  # the pool below is the parallelism

    def one(image: LabelledImage) -> NDArray[np.uint8] | str:
        try:
            pixels, _ = decode(image.path.read_bytes(), _MAX_PIXELS)
            return crop_breast(pixels, size)[0]
        except Refusal as refusal:
            return f"{refusal.code}: {refusal.detail}"

    with ThreadPoolExecutor() as pool:
        results = list(tqdm(pool.map(one, images), "preprocess", len(images), unit="image"))
    left_out = {
        str(image.path): result
        for image, result in zip(images, results, strict=True)
        if isinstance(result, str)
    }
    if len(left_out) > len(images) / 20:
        listing = "\n".join(f"{path}: {why}" for path, why in left_out.items())
        raise ManifestError(f"{len(left_out)} of {len(images)} images are unusable\n{listing}")
    return np.stack([result for result in results if not isinstance(result, str)]), left_out
