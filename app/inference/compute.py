"""What all models of a process compute with: its threads, its batches, its memory of images.

However many models are loaded, there are as many threads as cores, an image waits its turn among
those of every model, and what is remembered has one limit.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from app import metrics
from app.inference.batcher import Batcher, Encode
from app.inference.look import Look
from app.inference.remembered import Remembered
from app.inference.sessions import Features
from app.inference.workers import Turn, Workers
from app.settings import Settings
from app.tracing import spans

T = TypeVar("T")

_GPU_BATCH = 32  # images
_BATCHES_AHEAD = 2  # that may be decoded while one is on the GPU


class Compute:
    """Started once for a ``device``, stopped once; in between, any number of models use it."""

    def __init__(self, settings: Settings, device: Literal["cpu", "cuda"]) -> None:
        cv2.setNumThreads(1)  # the workers are the parallelism
        self.device = device
        on_gpu = device == "cuda"
        self.max_batch = settings.max_batch or (_GPU_BATCH if on_gpu else 1)
        batches = self.max_batch > 1
        self.remembered: Remembered[Look] = Remembered(
            settings.share_of(settings.remembered_bytes), lambda look: look.nbytes
        )
        self._workers = Workers(
            settings.workers, spare=_BATCHES_AHEAD * self.max_batch if batches else 0
        )
        self._batcher = (
            Batcher(
                workers=1 if on_gpu else settings.workers,
                max_batch=self.max_batch,
                observe_batch=metrics.BATCH_IMAGES.observe,
            )
            if batches
            else None
        )

    async def run(self, turn: Turn, work: Callable[[], T], *, image: bool = True) -> T:
        """Do ``work`` on a worker: an ``image``, or something small around several."""
        since, parent = time.perf_counter(), spans.under_way()
        waited = spans.waiting("queue")

        def begun() -> T:
            metrics.QUEUE_SECONDS.observe(time.perf_counter() - since)
            waited()
            with spans.within(parent):
                return work()

        try:
            return await asyncio.wrap_future(self._workers.submit(turn, begun, image=image))
        finally:
            waited()  # also what was given up before its turn came

    async def run_spare(self, turn: Turn, work: Callable[[], T]) -> T:
        """Do ``work`` on a worker that has nothing else to do. How long it waited is not told:
        nobody did."""
        turn.due = math.inf
        return await asyncio.wrap_future(self._workers.submit(turn, work))

    def encode(self, encoder: Encode, image: NDArray[np.float32]) -> Features:
        """What ``encoder`` makes of float32 [1, height, width, 1]. Call it on a worker."""
        if self._batcher is None:
            metrics.BATCH_IMAGES.observe(1)
            return encoder(image)
        (waiting,) = self._batcher.submit(encoder, image)
        with self._workers.elsewhere():
            return waiting.result()

    def stop(self) -> None:
        """Finish what is under way, then end the threads."""
        self._workers.stop()
        if self._batcher:
            self._batcher.stop()
