"""The way of a request: bytes -> pixels -> tensor -> batch -> reading -> answer.

Owns the threads: one pool that decodes and renders, and the encoder's batcher. The event loop
that calls it only waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from app import metrics
from app.bundle import Bundle
from app.imaging.decode import decode
from app.imaging.facts import Laterality
from app.imaging.preprocess import InputGeometry, ModelInput, preprocess
from app.inference.batcher import Batcher
from app.inference.exams import Exam, Sent, slots_and_days
from app.inference.sessions import ExamReading, Features, Sessions
from app.problems import Refusal
from app.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Stated:
    """What the caller says of an image."""

    exam_date: date | None = None
    laterality: Laterality | None = None
    view: str | None = None


@dataclass(frozen=True)
class Prepared:
    """An image ready for the encoder; ``pixels`` uint8 or uint16 [rows, columns] as decoded."""

    sent: Sent
    pixels: NDArray[Any]
    input: ModelInput


class Stopwatch:
    """Seconds per stage of one request, each also observed as a metric."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        metrics.STAGE_SECONDS.labels(name).observe(spent)

    def milliseconds(self) -> dict[str, float]:
        total = time.perf_counter() - self._start
        return {k: round(v * 1000, 2) for k, v in {**self.seconds, "total": total}.items()}


class Pipeline:
    """Started with a verified bundle, stopped once; in between, any number of requests."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        cv2.setNumThreads(1)  # the pools are the parallelism
        self.bundle = bundle
        self.sessions = Sessions(bundle.encoder, bundle.head, device=settings.device)
        size = bundle.manifest.input
        self._size = InputGeometry(size.height, size.width)
        self._max_pixels = settings.max_pixels
        self._accept = settings.accept
        self._pool = ThreadPoolExecutor(settings.workers, "work")
        on_gpu = self.sessions.device == "cuda"
        self._batcher = Batcher(
            self.sessions.encode,
            workers=1 if on_gpu else settings.workers,
            max_batch=settings.max_batch or (32 if on_gpu else 1),
            max_waiting=settings.max_waiting_images,
            observe_batch=metrics.BATCH_IMAGES.observe,
        )

    async def prepare(
        self, files: Sequence[bytes], stated: Sequence[Stated], watch: Stopwatch
    ) -> list[Prepared]:
        """Decode and preprocess all files, in parallel. Raises the first ``Refusal``."""
        alone = len(files) == 1  # nothing to compare with, so no need to hash it
        jobs = [
            partial(self._prepare_one, index, data, said, alone, watch)
            for index, (data, said) in enumerate(zip(files, stated, strict=True))
        ]
        return list(await asyncio.gather(*map(self._run, jobs)))

    async def read(
        self,
        prepared: Sequence[Prepared],
        exams: Sequence[Exam],
        watch: Stopwatch,
        answer: Callable[[ExamReading], T],
    ) -> T:
        """Encode all images, batched with those of other requests, read them as a series, and
        make the ``answer`` of the reading, in the pool as well."""
        with watch.stage("encode"):
            waiting = self._batcher.submit(np.stack([image.input.tensor for image in prepared]))
            parts = await asyncio.gather(*(asyncio.wrap_future(future) for future in waiting))
        return await self._run(lambda: answer(self._read(parts, exams, watch)))

    def stop(self) -> None:
        """Finish what is under way, then end the threads."""
        self._batcher.stop()
        self._pool.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _prepare_one(
        self, index: int, data: bytes, stated: Stated, alone: bool, watch: Stopwatch
    ) -> Prepared:
        try:
            with watch.stage("decode"):
                pixels, facts = decode(data, self._max_pixels, self._accept)
            with watch.stage("preprocess"):
                model_input = preprocess(pixels, self._size)
        except Refusal as refusal:
            if alone:
                raise
            raise Refusal(refusal.code, f"Image {index}: {refusal.detail}") from None
        sent = Sent(
            index=index,
            facts=facts,
            content_key=hashlib.sha256(data).hexdigest() if not alone else None,
            stated_date=stated.exam_date,
            stated_laterality=stated.laterality,
            stated_view=stated.view,
        )
        return Prepared(sent, pixels, model_input)

    def _read(
        self, parts: Sequence[Features], exams: Sequence[Exam], watch: Stopwatch
    ) -> ExamReading:
        with watch.stage("read"):
            features = Features(
                np.concatenate([part.maps for part in parts]),
                np.concatenate([part.pooled for part in parts]),
            )
            return self.sessions.read(features, *slots_and_days(exams))
