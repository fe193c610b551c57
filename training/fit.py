"""Fit the hybrid: manifest -> run folder with weights, validation scores, metrics and plots.

The run folder: ``config.json``, ``data.json`` (classes, splits, fingerprint), ``last.keras`` and
``average.npz`` and ``state.json`` (to resume), ``best.keras`` (averaged weights of the best epoch),
``history.csv``, ``val_scores.csv``, ``metrics.json``, plots.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.imaging.preprocess import InputGeometry
from training import breasts as breasts_module
from training import manifest, metrics
from training.breasts import Breasts
from training.config import FitConfig, OptimiserConfig
from training.models import efficientnet_lite0
from training.models.hybrid import Hybrid
from training.report import write_report
from training.run_folder import open_run, replace
from training.score import score_breasts, score_series, simulated_val_series
from training.series import Batch, Mix, Series, epoch_of_batches
from training.simulate import read_intervals


@dataclass
class Progress:
    """Where a run stands; written after every epoch."""

    epoch: int = 0
    step: int = 0
    best_choice: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(config: FitConfig) -> Path:
    """Train, or resume, the run that ``config`` names. Returns its folder."""
    keras.utils.set_random_seed(config.optimiser.seed)
    cv2.setNumThreads(1)
    open_run(config.run, config)
    train, val, classes = load_data(config)
    positive = len(classes) - 1
    intervals = read_intervals(config.series.study_dates)
    val_series = simulated_val_series(val, config.series, positive, intervals)

    model, average, progress = _start_or_resume(config, len(classes))
    while progress.epoch < config.optimiser.epochs:
        if progress.epoch <= config.optimiser.head_epochs:
            _start_stage(config, model, head_only=progress.epoch < config.optimiser.head_epochs)
            average = model.get_weights()
        _seed_dropout(model, config.optimiser.seed, progress.epoch)
        rng = np.random.default_rng([config.optimiser.seed, progress.epoch])
        batches = epoch_of_batches(
            train, _mix(config), positive=positive, intervals=intervals, rng=rng
        )
        losses: list[float] = []
        title = f"epoch {progress.epoch + 1}/{config.optimiser.epochs}"
        with tqdm(total=len(train), desc=title, unit="image", mininterval=5) as bar:
            for batch in _ahead(batches):
                model.optimizer.learning_rate = learning_rate(
                    config.optimiser, progress.epoch + bar.n / len(train)
                )
                losses.append(_train_on(model, batch))
                progress.step += 1
                if progress.step % config.optimiser.average_every == 0:
                    updates = progress.step // config.optimiser.average_every
                    _update_average(average, model, config.optimiser.average_decay, updates)
                bar.update(batch.epoch_images)
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        progress.epoch += 1
        _end_of_epoch(config, model, average, progress, val, val_series, float(np.mean(losses)))
    best = keras.models.load_model(config.run / "best.keras")
    write_report(config.run, best, val, val_series, progress.history, positive)
    return config.run


def load_data(config: FitConfig) -> tuple[Breasts, Breasts, tuple[str, ...]]:
    """Read, split and preprocess what the config names; write ``data.json``."""
    images = manifest.read(config.data.manifest, config.data.image_root)
    images = manifest.with_splits(images, config.data.val_fraction, config.optimiser.seed)
    classes = manifest.classes_of(images, config.data.positive_class)
    size = InputGeometry(config.model.height, config.model.width)
    loaded, left_out = breasts_module.load(images, classes, size, config.cache)
    train, val = loaded.of_split("train"), loaded.of_split("val")
    facts = {
        "classes": classes,
        "positive_class": config.data.positive_class,
        "fingerprint_sha256": manifest.fingerprint(images),
        "left_out": left_out,
        "splits": {
            name: {
                "images": len(part),
                "patients": len({row.patient_id for row in part.rows}),
                "breasts": len(part.by_breast()),
                "per_class": {c: int((part.labels == k).sum()) for k, c in enumerate(classes)},
            }
            for name, part in (("train", train), ("val", val))
        },
        "terms": config.data.terms,
    }
    (config.run / "data.json").write_text(json.dumps(facts, indent=1))
    return train, val, classes


def learning_rate(optimiser: OptimiserConfig, epochs_done: float) -> float:
    """Constant while only the head learns; then a linear warm-up and half a cosine down to a
    hundredth. ``epochs_done`` counts fractions of an epoch."""
    since_head = epochs_done - optimiser.head_epochs
    if since_head < 0:
        return optimiser.head_learning_rate
    if since_head < optimiser.warmup_epochs:
        return optimiser.learning_rate * max(since_head / optimiser.warmup_epochs, 0.01)
    left = optimiser.epochs - optimiser.head_epochs - optimiser.warmup_epochs
    done = min(1.0, (since_head - optimiser.warmup_epochs) / max(left, 1e-6))
    return float(optimiser.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * done))))


def _mix(config: FitConfig) -> Mix:
    return Mix(
        images_per_batch=config.optimiser.images_per_batch,
        series_share=config.series.share,
        unchanged_share=config.series.unchanged_share,
        max_exams=config.series.max_exams,
    )


def _start_or_resume(
    config: FitConfig, classes: int
) -> tuple[Hybrid, list[NDArray[Any]], Progress]:
    state = config.run / "state.json"
    if state.exists():
        model = keras.models.load_model(config.run / "last.keras")
        with np.load(config.run / "average.npz") as stored:
            average = [stored[f"w{i}"] for i in range(len(stored.files))]
        return model, average, Progress(**json.loads(state.read_text()))
    model = build(config, classes)
    return model, model.get_weights(), Progress()


def build(config: FitConfig, classes: int) -> Hybrid:
    """Build the hybrid of ``config``, with ImageNet weights where it asks for them."""
    chosen = config.model
    model = Hybrid(
        encoder=chosen.encoder,
        height=chosen.height,
        width=chosen.width,
        classes=classes,
        features=chosen.features,
        lstm_units=chosen.lstm_units,
        dropout=chosen.dropout,
        frozen_until=chosen.frozen_until,
    )
    model.build()
    if chosen.encoder == "efficientnet_lite0" and chosen.imagenet_weights:
        efficientnet_lite0.load_imagenet_weights(model.encoder)
    return model


def _start_stage(config: FitConfig, model: Hybrid, *, head_only: bool) -> None:
    """Compile for a stage of transfer learning: first the head alone, since its random start
    would undo what the encoder knows; then everything that the config does not freeze."""
    model.freeze_until(model.encoder.layers[-1].name if head_only else config.model.frozen_until)
    optimiser = keras.optimizers.AdamW(
        config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay, clipnorm=1.0
    )
    optimiser.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.optimiser.label_smoothing
    )
    model.compile(optimiser, loss)


def _seed_dropout(model: Hybrid, seed: int, epoch: int) -> None:
    """Restart the dropout layers' random numbers: Keras does not keep them in a checkpoint, and a
    resumed run should go on like one that was never stopped."""
    for layer in (model.pooled_dropout, model.feature_dropout, *model.encoder.layers):
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign(np.array([seed + epoch, 0], np.uint32))


def _train_on(model: Hybrid, batch: Batch) -> float:
    """One step; returns the batch's loss."""
    model.reset_metrics()  # else Keras answers the mean loss since the beginning
    wanted = np.eye(model.get_config()["classes"], dtype=np.float32)[batch.labels]
    return float(model.train_on_batch(batch.inputs, wanted))


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make the next batch while the current one trains."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _update_average(average: list[NDArray[Any]], model: Hybrid, decay: float, updates: int) -> None:
    """Exponential moving average of all weights, in place, with a short memory at first."""
    decay = min(decay, updates / (4 + updates))
    for held, now in zip(average, model.get_weights(), strict=True):
        held *= decay
        held += (1 - decay) * now


def _end_of_epoch(
    config: FitConfig,
    model: Hybrid,
    average: Sequence[NDArray[Any]],
    progress: Progress,
    val: Breasts,
    val_series: Sequence[Series],
    loss: float,
) -> None:
    """Score the averaged weights on val, keep the best, and leave everything needed to resume."""
    current = model.get_weights()
    model.set_weights(list(average))
    positive = model.get_config()["classes"] - 1
    per_image, per_breast = score_breasts(model, val, positive)
    growing = score_series(model, val_series, positive)
    row = {
        "epoch": progress.epoch,
        "loss": loss,
        "val_auc_image": metrics.auc(per_image.truth, per_image.probability),
        "val_auc_breast": metrics.auc(per_breast.truth, per_breast.probability),
        "val_auc_simulated": metrics.auc(growing.truth, growing.probability),
    }
    progress.history.append(row)
    # Real breasts decide; the simulated series only break near ties.
    choice = row["val_auc_breast"] + 0.1 * row["val_auc_simulated"]
    if choice > progress.best_choice:
        progress.best_choice = choice
        replace(config.run / "best.keras", model.save)
    model.set_weights(current)
    replace(config.run / "last.keras", model.save)
    arrays = {f"w{i}": held for i, held in enumerate(average)}
    replace(
        config.run / "average.npz",
        lambda path: np.savez(path, allow_pickle=False, **arrays),
    )
    replace(config.run / "state.json", lambda path: path.write_text(json.dumps(asdict(progress))))
    with (config.run / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(progress.history)
    print({name: round(value, 4) for name, value in row.items()}, flush=True)
