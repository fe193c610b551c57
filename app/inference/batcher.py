"""Images of concurrent requests -> batches for the encoder.

A batch is what waits when a worker becomes free, up to a limit; an idle worker never waits for
more to come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.inference.sessions import Features


@dataclass(frozen=True)
class _Job:
    image: NDArray[np.float32]
    done: Future[Features]


class Batcher:
    """Owns the encoder's worker threads: submit, form a batch, run, deliver, stop."""

    def __init__(
        self,
        encode: Callable[[NDArray[np.float32]], Features],
        *,
        workers: int,
        max_batch: int,
        observe_batch: Callable[[int], None],
    ) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._observe_batch = observe_batch
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"encoder-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, images: NDArray[np.float32]) -> list[Future[Features]]:
        """Queue float32 [images, height, width, 1]; one future of ``Features`` [1, ...] each."""
        jobs = [_Job(image, Future()) for image in images]
        with self._changed:
            if self._stopping:
                raise RuntimeError("the batcher has stopped")
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))
        return [job.done for job in jobs]

    def stop(self) -> None:
        """Finish what was submitted, then end the workers."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            self._observe_batch(len(batch))
            try:
                features = self._encode(np.stack([job.image for job in batch]))
            except Exception as error:  # delivered to whoever waits; the worker lives on
                for job in batch:
                    job.done.set_exception(error)
            else:
                for i, job in enumerate(batch):  # copies: one that is kept would keep all
                    maps, pooled = features.maps[i : i + 1], features.pooled[i : i + 1]
                    job.done.set_result(Features(maps.copy(), pooled.copy()))

    def _take(self) -> list[_Job]:
        """The next batch; empty when stopping and nothing waits."""
        with self._changed:
            while True:
                batch: list[_Job] = []
                while self._waiting and len(batch) < self._max_batch:
                    job = self._waiting.popleft()
                    if job.done.set_running_or_notify_cancel():  # else the client has gone
                        batch.append(job)
                if batch or self._stopping:
                    return batch
                self._changed.wait()
