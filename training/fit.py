"""Fit a model: manifest -> run folder with weights, validation scores, metrics and plots.

Two stages. *Images*: the encoder learns labels from real exams and the look of masses from
simulated ones; first the head alone, then everything that the config does not freeze. *Time*
(the hybrid only): the head learns to read exams in order, on encoded exams (``training.reading``).

The run folder: ``config.json``, ``data.json`` (classes, splits, fingerprint), ``last.keras`` and
``average.npz`` and ``state.json`` (to resume), ``best-image.keras`` (averaged weights of the best
epoch), ``mass-bank.npz``, ``real-bank.npz`` and ``val-series.npz`` (encoded exams),
``best.keras`` (the result), ``history.csv``, ``reading.csv``, ``val_scores.csv``,
``metrics.json``, ``figures.json``, plots, and images to verify and to calibrate an export on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
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
from training import exam_bank, exam_series, manifest, metrics
from training.batches import Batch, Mix, ahead, epoch_of_batches, weights_of_labels
from training.breasts import Breasts
from training.config import FitConfig, ModelConfig, OptimiserConfig
from training.exam_bank import ExamBank
from training.exam_series import ExamSeries
from training.models import efficientnet_lite0
from training.models.hybrid import Hybrid
from training.models.lesson import Lesson
from training.prune import pruned
from training.reading import fit_head
from training.report import write_report
from training.run_folder import RunError, open_run, replace
from training.score import score_breasts
from training.series import Series, simulated, unchanged
from training.simulate import read_intervals

_UNCHANGED_SHARE = 0.35  # of the series: real exams, alone or after unchanged priors
_CALIBRATION_IMAGES = 96


@dataclass
class Progress:
    """Where the first stage stands; written after every epoch."""

    epoch: int = 0
    step: int = 0
    best_choice: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(config: FitConfig) -> Path:
    """Train, or resume, the run that ``config`` names. Returns its folder."""
    open_run(config.run, config)
    _choose_precision(config.optimiser)
    keras.utils.set_random_seed(config.optimiser.seed)
    cv2.setNumThreads(1)
    train, val, classes = load_data(config)
    positive = len(classes) - 1
    progress = _learn_images(config, train, val, classes)
    model: Hybrid = keras.models.load_model(config.run / "best-image.keras", compile=False)
    val_series = None
    if model.reader == "lstm" and len(model.lstms) == 1 and config.series.breasts:
        model, val_series = _learn_time(config, model, train, val, positive)
    replace(config.run / "best.keras", model.save)
    write_report(config.run, model, val, val_series, progress.history, positive)
    some = np.random.default_rng(config.optimiser.seed).permutation(len(train))
    np.savez_compressed(
        config.run / "calibration.npz", pixels=train.pixels[some[:_CALIBRATION_IMAGES]]
    )
    return config.run


def load_data(config: FitConfig) -> tuple[Breasts, Breasts, tuple[str, ...]]:
    """Read, split and preprocess what the config names; write ``data.json``."""
    size = InputGeometry(config.model.height, config.model.width)
    images = manifest.read_checked(
        config.data.manifest,
        config.data.image_root,
        classes=config.data.classes,
        positive_class=config.data.positive_class,
        is_known=lambda images: breasts_module.is_cached(images, size, config.cache),
    )
    images = manifest.with_splits(images, config.data.val_fraction, config.optimiser.seed)
    classes = manifest.classes_of(images, config.data.positive_class)
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


def build(chosen: ModelConfig, classes: int) -> Hybrid:
    """Build the model that the config names, with ImageNet weights where it asks for them."""
    encoder = "rows" if chosen.architecture == "rnn_only" else chosen.encoder
    model = Hybrid(
        encoder=encoder,
        encoder_options={"blocks": chosen.blocks} if encoder == "paper" else None,
        reader="last" if chosen.architecture == "cnn_only" else "lstm",
        height=chosen.height,
        width=chosen.width,
        classes=classes,
        features=chosen.features,
        lstm_units=chosen.lstm_units,
        lstm_layers=chosen.lstm_layers,
        dropout=chosen.dropout,
        frozen_until=chosen.frozen_until,
    )
    model.build()
    if chosen.start_from is not None:
        model = _started_from(chosen.start_from, model, chosen.prune_share)
        model.freeze_until(chosen.frozen_until)
    elif encoder == "efficientnet_lite0" and chosen.imagenet_weights:
        efficientnet_lite0.load_imagenet_weights(model.encoder)
    return model


def _started_from(run: Path, model: Hybrid, prune_share: float) -> Hybrid:
    """``model`` with the image weights of another fit, or what pruning leaves of it. Raises
    ``RunError`` if they do not fit."""
    stored = run / "best-image.keras"
    if not stored.is_file():
        raise RunError(f"{stored} is missing: start_from must name the folder of a fit")
    weights = keras.models.load_model(stored, compile=False).get_weights()
    wanted = model.get_weights()
    if [w.shape for w in weights] != [w.shape for w in wanted]:
        raise RunError(f"{stored} is of another shape than [model] asks for")
    model.set_weights(weights)
    return pruned(model, prune_share) if prune_share else model


def _choose_precision(optimiser: OptimiserConfig) -> None:
    chosen = optimiser.precision
    if chosen == "auto":
        chosen = "mixed_bfloat16" if _has_gpu() else "float32"
    keras.config.set_dtype_policy(chosen)


def _has_gpu() -> bool:
    if keras.backend.backend() == "torch":
        import torch

        return bool(torch.cuda.is_available())
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX, where it has no such platform
        return False


def _learn_images(
    config: FitConfig, train: Breasts, val: Breasts, classes: Sequence[str]
) -> Progress:
    """The first stage. Leaves ``best-image.keras``."""
    optimiser = config.optimiser
    lesson, average, progress = _start_or_resume(config, len(classes))
    weights = weights_of_labels(train, optimiser)
    mix = Mix(
        optimiser.images_per_batch,
        config.masses.share,
        tuple(lesson.hybrid.encoder.output_shape[1:3]),
        optimiser.label_smoothing,
    )
    while not is_done(progress, optimiser):
        if progress.epoch <= optimiser.head_epochs:
            _start_stage(config, lesson, head_only=progress.epoch < optimiser.head_epochs)
            average = lesson.get_weights()
        _seed(lesson, optimiser.seed, progress.epoch)
        batches = epoch_of_batches(
            train,
            weights,
            mix,
            classes=len(classes),
            positive=len(classes) - 1,
            rng=np.random.default_rng([optimiser.seed, progress.epoch]),
        )
        losses: list[float] = []
        title = f"epoch {progress.epoch + 1}/{optimiser.epochs}"
        with tqdm(total=len(train), desc=title, unit="image", mininterval=5) as bar:
            for batch in ahead(batches):
                lesson.optimizer.learning_rate = learning_rate(
                    optimiser, progress.epoch + bar.n / len(train)
                )
                losses.append(_train_on(lesson, batch))
                progress.step += 1
                if progress.step % optimiser.average_every == 0:
                    updates = progress.step // optimiser.average_every
                    _update_average(average, lesson, optimiser.average_decay, updates)
                bar.update(batch.epoch_images)
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        progress.epoch += 1
        _end_of_epoch(config, lesson, average, progress, val, float(np.mean(losses)))
    return progress


def is_done(progress: Progress, optimiser: OptimiserConfig) -> bool:
    waited = progress.epoch - progress.best_epoch
    stopped_early = 0 < optimiser.patience <= waited and progress.epoch > optimiser.head_epochs
    return progress.epoch >= optimiser.epochs or stopped_early


def _start_or_resume(
    config: FitConfig, classes: int
) -> tuple[Lesson, list[NDArray[Any]], Progress]:
    state = config.run / "state.json"
    if state.exists():
        lesson = keras.models.load_model(config.run / "last.keras")
        with np.load(config.run / "average.npz") as stored:
            average = [stored[f"w{i}"] for i in range(len(stored.files))]
        return lesson, average, Progress(**json.loads(state.read_text()))
    hybrid = build(config.model, classes)
    lesson = Lesson(hybrid, mass_weight=config.masses.weight, seed=config.optimiser.seed)
    lesson.build()
    return lesson, lesson.get_weights(), Progress()


def _start_stage(config: FitConfig, lesson: Lesson, *, head_only: bool) -> None:
    """Compile for a stage of transfer learning: first the head alone, since its random start
    would undo what the encoder knows; then everything that the config does not freeze."""
    hybrid, chosen = lesson.hybrid, config.optimiser
    hybrid.freeze_until(hybrid.encoder.layers[-1].name if head_only else config.model.frozen_until)
    if chosen.kind == "sgd":
        optimiser = keras.optimizers.SGD(
            chosen.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=chosen.weight_decay,
            clipnorm=1.0,
        )
    else:
        optimiser = keras.optimizers.AdamW(
            chosen.learning_rate, weight_decay=chosen.weight_decay, clipnorm=1.0
        )
    optimiser.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    lesson.compile(optimiser)


def _seed(lesson: Lesson, seed: int, epoch: int) -> None:
    """Restart the random numbers of dropout and augmentation: Keras does not keep them in a
    checkpoint, and a resumed run should go on like one that was never stopped."""
    hybrid = lesson.hybrid
    layers = (
        lesson.augment, hybrid.pooled_dropout, hybrid.feature_dropout, *hybrid.encoder.layers,
    )  # fmt: skip
    for layer in layers:
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign(np.array([seed + epoch, 0], np.uint32))


def _train_on(lesson: Lesson, batch: Batch) -> float:
    """One step; returns the batch's loss."""
    lesson.reset_metrics()  # else Keras answers the mean loss since the beginning
    return float(lesson.train_on_batch(batch.inputs, batch.targets))


def _update_average(
    average: list[NDArray[Any]], lesson: Lesson, decay: float, updates: int
) -> None:
    """Exponential moving average of all weights, in place, with a short memory at first."""
    decay = min(decay, updates / (4 + updates))
    for held, now in zip(average, lesson.get_weights(), strict=True):
        held *= decay
        held += (1 - decay) * now


def _end_of_epoch(
    config: FitConfig,
    lesson: Lesson,
    average: Sequence[NDArray[Any]],
    progress: Progress,
    val: Breasts,
    loss: float,
) -> None:
    """Score the averaged weights on val, keep the best, and leave everything needed to resume."""
    current = lesson.get_weights()
    lesson.set_weights(list(average))
    positive = lesson.hybrid.get_config()["classes"] - 1
    per_image, per_breast = score_breasts(lesson.hybrid, val, positive)
    row = {
        "epoch": progress.epoch,
        "loss": loss,
        "val_auc_image": metrics.auc(per_image.truth, per_image.probability),
        "val_auc_breast": metrics.auc(per_breast.truth, per_breast.probability),
    }
    progress.history.append(row)
    if row["val_auc_breast"] > progress.best_choice:
        progress.best_choice, progress.best_epoch = row["val_auc_breast"], progress.epoch
        replace(config.run / "best-image.keras", _in_single_precision(lesson.hybrid).save)
    lesson.set_weights(current)
    replace(config.run / "last.keras", lesson.save)
    arrays = {f"w{i}": held for i, held in enumerate(average)}
    replace(
        config.run / "average.npz",
        lambda path: np.savez(path, allow_pickle=False, **arrays),
    )
    replace(config.run / "state.json", lambda path: path.write_text(json.dumps(asdict(progress))))
    _write_table(config.run / "history.csv", progress.history)
    print({name: round(value, 4) for name, value in row.items()}, flush=True)


def _in_single_precision(model: Hybrid) -> Hybrid:
    """A model that was trained in mixed precision, as it will be exported and served."""
    policy = keras.config.dtype_policy()
    if policy.name == "float32":
        return model
    keras.config.set_dtype_policy("float32")
    options = {name: value for name, value in model.get_config().items() if name != "dtype"}
    single: Hybrid = Hybrid.from_config(options)
    single.build()
    single.set_weights(model.get_weights())
    keras.config.set_dtype_policy(policy)
    return single


def _learn_time(
    config: FitConfig, model: Hybrid, train: Breasts, val: Breasts, positive: int
) -> tuple[Hybrid, ExamSeries]:
    """The second stage. Returns the model with the series of the validation patients."""
    chosen, seed = config.series, config.optimiser.seed
    intervals = read_intervals(chosen.study_dates)
    encode = exam_series.pooled_encoder(model)
    rng = np.random.default_rng(seed)

    def bank(name: str, make: Any, indices: NDArray[Any], most: int, acquisitions: int) -> ExamBank:
        stored = config.run / f"{name}-bank.npz"
        some = [int(i) for i in rng.permutation(indices)[:most]]
        if not stored.exists():
            made = make(encode, train, some, acquisitions, seed)
            replace(stored, lambda path: exam_bank.save(made, path))
        return exam_bank.load(stored)

    lesion_free = np.flatnonzero(train.labels != positive)
    count, acquisitions = chosen.breasts, chosen.acquisitions
    masses = bank("mass", exam_bank.bank_of_masses, lesion_free, count, acquisitions)
    everyone = np.arange(len(train))
    real = bank("real", exam_bank.bank_of_unchanged, everyone, 3 * count, acquisitions // 6)
    stored = config.run / "val-series.npz"
    if not stored.exists():
        made = exam_series.encode_series(
            encode,
            lambda rng: draw_series(val, chosen.max_exams, positive, intervals, rng),
            chosen.val_count,
            chosen.max_exams,
            [seed],
            "val series",
        )
        replace(stored, lambda path: exam_series.save(made, path))
    validation = exam_series.load(stored)
    most = chosen.max_exams
    grown, history = fit_head(
        model,
        lambda n, rng: exam_bank.draw_simulated(masses, n, most, positive, intervals, rng),
        lambda n, rng: exam_bank.draw_unchanged(real, n, most, intervals, rng),
        validation,
        positive=positive,
        features=chosen.features,
        units=chosen.lstm_units,
        epochs=chosen.epochs,
        learning_rate=chosen.learning_rate,
        dropout=chosen.dropout,
        seed=seed,
    )
    _write_table(config.run / "reading.csv", history)
    return grown, validation


def draw_series(
    breasts: Breasts,
    max_exams: int,
    positive: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> Series:
    """A series to learn time from: a simulated mass, or a real exam with unchanged priors."""
    if rng.random() < _UNCHANGED_SHARE:
        index = int(rng.integers(len(breasts)))
        return unchanged(breasts, index, int(rng.integers(1, max_exams + 1)), intervals, rng)
    index = int(rng.choice(np.flatnonzero(breasts.labels != positive)))
    return simulated(breasts, index, int(rng.integers(2, max_exams + 1)), positive, intervals, rng)


def _write_table(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
