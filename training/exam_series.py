"""Series -> the pooled features of their exams: what is left to read once images are encoded.

Encoding is what costs. Done once, series can be read again and again: to fit an LSTM, to shuffle
their exams, to leave out their days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.imaging.preprocess import to_tensor
from training.models.hybrid import Hybrid
from training.series import Series

_IMAGES_PER_BATCH = 16

# Images uint8 [images, height, width] -> feature vectors float32 [images, features]
Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class ExamSeries:
    """``exams`` float32 [series, T, features], padded on the right; ``days`` float32 [series, T]
    since the previous exam; ``lengths`` int32 [series]; ``labels`` int32 [series], an index into
    the classes; ``courses`` and ``patients`` str [series], see ``Series``."""

    exams: NDArray[np.float32]
    days: NDArray[np.float32]
    lengths: NDArray[np.int32]
    labels: NDArray[np.int32]
    courses: NDArray[np.str_]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, chosen: NDArray[Any]) -> ExamSeries:
        return ExamSeries(**{name: values[chosen] for name, values in vars(self).items()})

    @property
    def is_last(self) -> NDArray[np.float32]:
        """1 at each series' last exam, float32 [series, T]."""
        steps = np.arange(self.exams.shape[1])
        return np.asarray(steps[None] == self.lengths[:, None] - 1, np.float32)


def joined(one: ExamSeries, other: ExamSeries) -> ExamSeries:
    """The series of both."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return ExamSeries(*(np.concatenate(pair) for pair in pairs))


def last_exams(series: ExamSeries, count: int) -> ExamSeries:
    """Each series' last ``count`` exams, fewer where there are fewer."""
    exams, days = np.zeros_like(series.exams), np.zeros_like(series.days)
    lengths = np.minimum(series.lengths, count)
    for s, (length, kept) in enumerate(zip(series.lengths, lengths, strict=True)):
        exams[s, :kept] = series.exams[s, length - kept : length]
        days[s, :kept] = series.days[s, length - kept : length]
        days[s, 0] = 0  # the first exam has none before it
    return replace(series, exams=exams, days=days, lengths=lengths.astype(np.int32))


def shuffled(series: ExamSeries, rng: np.random.Generator) -> ExamSeries:
    """The same exams in random order, at the same times."""
    exams = series.exams.copy()
    for s, length in enumerate(series.lengths):
        exams[s, :length] = series.exams[s, rng.permutation(length)]
    return replace(series, exams=exams)


def without_days(series: ExamSeries) -> ExamSeries:
    """The same exams in order, with nothing said of the time between them."""
    return replace(series, days=np.zeros_like(series.days))


def encode_series(
    encode: Encode,
    draw: Callable[[np.random.Generator], Series],
    count: int,
    max_exams: int,
    seed: Sequence[int],
    title: str,
) -> ExamSeries:
    """Draw ``count`` series, each with random numbers of its own from ``seed``, and encode their
    exams, the next ones being drawn meanwhile. An exam is the mean of its views' vectors: exact
    for a single view."""
    drawn = list(
        tqdm(_encoded(encode, draw, count, seed), title, total=count, unit="series", mininterval=5)
    )
    exams = np.zeros((count, max_exams, drawn[0][1].shape[1]), np.float32)
    days = np.zeros((count, max_exams), np.float32)
    for s, (item, encoded) in enumerate(drawn):
        exams[s, : len(encoded)] = encoded
        days[s, : len(encoded)] = item.days
    return ExamSeries(
        exams=exams,
        days=days,
        lengths=np.array([len(encoded) for _, encoded in drawn], np.int32),
        labels=np.array([item.label for item, _ in drawn], np.int32),
        courses=np.array([item.course for item, _ in drawn]),
        patients=np.array([item.patient for item, _ in drawn]),
    )


def pooled_encoder(model: Hybrid) -> Encode:
    """Encodes images by their pooled features, all that the hybrid's head sees of them."""
    image = keras.Input(model.encoder.input_shape[1:])
    encoder = keras.Model(image, model.pool(model.feature_maps(image)))

    def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = [
            np.asarray(encoder.predict_on_batch(to_tensor(images[i : i + _IMAGES_PER_BATCH])))
            for i in range(0, len(images), _IMAGES_PER_BATCH)
        ]
        return np.concatenate(found)

    return encode


def save(series: ExamSeries, path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **vars(series))


def load(path: Path) -> ExamSeries:
    with np.load(path) as stored:
        return ExamSeries(**{name: stored[name] for name in stored.files})


def _encoded(
    encode: Encode,
    draw: Callable[[np.random.Generator], Series],
    count: int,
    seed: Sequence[int],
) -> Iterator[tuple[Series, NDArray[np.float32]]]:
    """Series with their exams' features [exams, features], images batched across series."""
    with ThreadPoolExecutor(1) as pool:
        chunks = [range(i, min(i + 8, count)) for i in range(0, count, 8)]

        def draw_chunk(chunk: range) -> list[Series]:
            return [draw(np.random.default_rng([*seed, i])) for i in chunk]

        coming = pool.submit(draw_chunk, chunks[0])
        for following in [*chunks[1:], None]:
            items = coming.result()
            if following is not None:
                coming = pool.submit(draw_chunk, following)
            images = np.stack([view for s in items for exam in s.exams for view in exam])
            features = iter(encode(images))
            for item in items:
                exams = [np.mean([next(features) for _ in exam], axis=0) for exam in item.exams]
                yield item, np.stack(exams)
