"""Images of concurrent requests -> batches for the encoders.

A batch is what waits for one encoder when a worker becomes free, up to a limit; an idle worker
never waits for more to come.
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

Encode = Callable[[NDArray[np.float32]], Features]


@dataclass(frozen=True)
class _Job:
    encode: Encode
    image: NDArray[np.float32]
    done: Future[Features]


class Batcher:
    """Owns the encoders' worker threads: submit, form a batch, run, deliver, stop."""

    def __init__(
        self, *, workers: int, max_batch: int, observe_batch: Callable[[int], None]
    ) -> None:
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

    def submit(self, encode: Encode, images: NDArray[np.float32]) -> list[Future[Features]]:
        """Queue float32 [images, height, width, 1] for an encoder; one future of ``Features``
        [1, ...] each."""
        jobs = [_Job(encode, image, Future()) for image in images]
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
            _do(batch)
            del batch  # and with it an encoder that nobody may need any more

    def _take(self) -> list[_Job]:
        """The next batch; empty when stopping and nothing waits."""
        with self._changed:
            while True:
                batch: list[_Job] = []
                of_others: list[_Job] = []
                while self._waiting and len(batch) < self._max_batch:
                    job = self._waiting.popleft()
                    if batch and job.encode != batch[0].encode:
                        of_others.append(job)
                    elif job.done.set_running_or_notify_cancel():  # else the client has gone
                        batch.append(job)
                self._waiting.extendleft(reversed(of_others))
                if batch or self._stopping:
                    return batch
                self._changed.wait()


def _do(batch: list[_Job]) -> None:
    try:
        features = batch[0].encode(np.stack([job.image for job in batch]))
    except Exception as error:  # delivered to whoever waits; the worker lives on
        for job in batch:
            job.done.set_exception(error)
    else:
        for i, job in enumerate(batch):  # copies: one that is kept would keep all
            maps, pooled = features.maps[i : i + 1], features.pooled[i : i + 1]
            job.done.set_result(Features(maps.copy(), pooled.copy()))
