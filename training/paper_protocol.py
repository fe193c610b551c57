"""The paper's likely protocol, rerun beside an honest one, and what lies between the figures.

The paper reports 1560 images, 1248 for training and 312 for testing. The BUSI ultrasound set
(Al-Dhabyani et al., Data in Brief 2020) has 780 images and as many first lesion masks, and four
fifths of 1560 are 1248: probably masks were read as images. Four arms train the same CNN+LSTM: with
the masks or without, split at random or with near duplicates (and an image and its mask) on one
side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from sklearn.tree import DecisionTreeClassifier
from tqdm import tqdm

from app.imaging.decode import decode
from training import manifest, run_folder
from training.config import Section
from training.duplicates import thumbnail
from training.manifest import MAX_PIXELS, LabelledImage
from training.models.hybrid import Hybrid
from training.paper_figures import ARMS, Arm, Files, Piece
from training.paper_report import write_report
from training.run_folder import open_run
from training.series import Series, pack

_TEST_PARTS = 5  # one of them is for testing
_MASK = re.compile(r"_mask(_\d+)?$")
_SCORED_AT_ONCE = 64


class PaperConfig(Section):
    """``images`` and ``masks``: a folder per class each, or both the one folder as published."""

    run: Path
    images: Path
    masks: Path
    seeds: int = Field(3, ge=1)
    side: int = Field(64, ge=32, multiple_of=16)
    epochs: int = Field(12, ge=1)
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    features: int = Field(128, ge=1)
    lstm_units: int = Field(64, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)


@dataclass(frozen=True)
class Pictures:
    """``pixels`` uint8 [files, side, side] of all images, then of their masks, and what is known of
    them."""

    pixels: NDArray[np.uint8]
    files: Files


def paper_protocol(config: PaperConfig) -> Path:
    """Train every arm with every seed, keep each as it is done, and write the report."""
    pictures = read_pictures(config)
    open_run(config.run, config)
    folder = config.run / "pieces"
    folder.mkdir(exist_ok=True)
    wanted = [(arm, seed) for seed in range(config.seeds) for arm in ARMS]
    pieces: dict[Arm, list[Piece]] = {arm: [] for arm in ARMS}
    for arm, seed in tqdm(wanted, "arms x seeds", unit="training"):
        stored = folder / f"{arm.key}-{seed}.npz"
        if not stored.exists():
            train_and_score = partial(_run, config, pictures, arm, seed)
            run_folder.replace(stored, train_and_score)
        with np.load(stored) as arrays:
            pieces[arm].append(Piece(**arrays))
    write_report(config.run, pictures.files, pieces)
    return config.run


def read_pictures(config: PaperConfig) -> Pictures:
    """Read the images and the first mask of each. Raises ``ManifestError`` with every image that
    has none, and all else that is wrong."""
    missing = [folder for folder in (config.images, config.masks) if not folder.is_dir()]
    manifest.raise_findings(config.run, [f"no such folder: {folder}" for folder in missing])
    images = [row for row in manifest.read_folder(config.images) if not _MASK.search(row.path.stem)]
    masks = [
        replace(row, path=config.masks / row.label / f"{row.path.stem}_mask.png") for row in images
    ]
    findings = manifest.check(images)
    findings += [f"no mask: {row.path}" for row in masks if not row.path.is_file()]
    findings += manifest.check_images([*images, *masks])
    manifest.raise_findings(config.images, findings)

    def pixels_of(row: LabelledImage) -> NDArray[np.uint8]:
        grey, _ = decode(row.path.read_bytes(), MAX_PIXELS)
        scale = 255.0 / np.iinfo(grey.dtype).max
        return np.asarray(np.rint(scale * thumbnail(grey, config.side)), np.uint8)

    classes = tuple(sorted({row.label for row in images}))
    labels = np.array([classes.index(row.label) for row in images], np.int32)
    _, groups = np.unique([row.patient_id for row in images], return_inverse=True)
    return Pictures(
        pixels=np.stack(manifest.in_pool(pixels_of, [*images, *masks], "read")),
        files=Files(
            labels=np.tile(labels, 2),
            groups=np.tile(groups.astype(np.int32), 2),
            is_mask=np.repeat([False, True], len(images)),
            classes=classes,
        ),
    )


def split(arm: Arm, files: Files, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the files for training and for testing (a fifth), stratified by class."""
    used = np.flatnonzero(~files.is_mask | arm.masks)
    labels = files.labels[used]
    if arm.grouped:
        folds = StratifiedGroupKFold(_TEST_PARTS, shuffle=True, random_state=seed)
        train, test = next(folds.split(used, labels, files.groups[used]))
        return used[train], used[test]
    train, test = train_test_split(
        used, test_size=1 / _TEST_PARTS, stratify=labels, random_state=seed
    )
    return np.sort(train), np.sort(test)


def _run(config: PaperConfig, pictures: Pictures, arm: Arm, seed: int, target: Path) -> None:
    """Train one arm with one seed and store its test scores in ``target``."""
    train, test = split(arm, pictures.files, seed)
    model, loss = _train(config, pictures, train, seed)
    np.savez(
        target,
        train=train,
        test=test,
        probability=_score(model, pictures.pixels[test]),
        rule=trivial_rule(pictures, train, test),
        loss=np.array(loss),
    )


def _train(
    config: PaperConfig, pictures: Pictures, train: NDArray[np.int64], seed: int
) -> tuple[Hybrid, list[float]]:
    """Train the hybrid on exams of one image; returns it and the mean loss of each epoch."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = Hybrid(
        encoder="paper",
        height=config.side,
        width=config.side,
        classes=len(pictures.files.classes),
        features=config.features,
        lstm_units=config.lstm_units,
        dropout=config.dropout,
    )
    model.build()
    steps = config.epochs * -(-len(train) // config.batch)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    means = []
    for _ in range(config.epochs):
        order = rng.permutation(train)
        for start in range(0, len(order), config.batch):
            files = order[start : start + config.batch]
            mirrored = rng.random(len(files)) < 0.5
            images = [
                pixels[:, ::-1] if turn else pixels
                for pixels, turn in zip(pictures.pixels[files], mirrored, strict=True)
            ]
            inputs, labels = _packed(images, pictures.files.labels[files])
            loss = model.train_on_batch(inputs, labels)  # the mean since the epoch began
        means.append(float(loss))
        model.reset_metrics()
    return model, means


def _packed(
    images: Sequence[NDArray[np.uint8]], labels: NDArray[np.int32]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int32]]:
    return pack(
        [Series(((image,),), (0,), int(k)) for image, k in zip(images, labels, strict=True)]
    )


def _score(model: Hybrid, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Class probabilities [images, classes]."""
    logits = []
    for start in range(0, len(pixels), _SCORED_AT_ONCE):
        part = pixels[start : start + _SCORED_AT_ONCE]
        inputs, _ = _packed(list(part), np.zeros(len(part), np.int32))
        logits.append(keras.ops.convert_to_numpy(model(inputs, training=False)))
    return np.asarray(softmax(np.concatenate(logits).astype(np.float64), axis=1))


def trivial_rule(
    pictures: Pictures, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Classes of the test files by a decision tree of depth 3 that sees two numbers a file: the
    share of its pixels that are black or white (is it a mask?), and of those that are white (how
    large is the lesion?)."""
    black, white = pictures.pixels == 0, pictures.pixels == 255
    seen = np.stack([(black | white).mean((1, 2)), white.mean((1, 2))], axis=1)
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    tree.fit(seen[train], pictures.files.labels[train])
    return np.asarray(tree.predict(seen[test]), np.int32)
