"""Images of concurrent requests become batches; none is lost, mixed up or run after a refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from app.inference.batcher import Batcher, Encode
from app.inference.sessions import Features

SECONDS = 20
Submit = Callable[[NDArray[np.float32]], list[Future[Features]]]


def encode(images: NDArray[np.float32]) -> Features:
    """An encoder whose answer tells which image it was given: twice its value."""
    return Features(images[:, :1, :1] * 2, images[:, 0, 0] * 2)


def images(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None, None] * np.ones((1, 4, 3, 1), np.float32)


class Gate:
    """An encoder that waits until it is let go, so that a test decides what piles up."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def encode(self, batch: NDArray[np.float32]) -> Features:
        self.entered.release()
        assert self.open.wait(SECONDS)
        return encode(batch)

    def wait_until_busy(self) -> None:
        assert self.entered.acquire(timeout=SECONDS)


@contextmanager
def batching(
    encoder: Encode, *, workers: int = 1, max_batch: int = 4
) -> Iterator[tuple[Submit, list[int]]]:
    """Batches for one encoder: what submits to it, and the sizes of its batches."""
    with batching_for_any(workers=workers, max_batch=max_batch) as (batcher, sizes):
        yield partial(batcher.submit, encoder), sizes


@contextmanager
def batching_for_any(*, workers: int, max_batch: int) -> Iterator[tuple[Batcher, list[int]]]:
    sizes: list[int] = []
    batcher = Batcher(workers=workers, max_batch=max_batch, observe_batch=sizes.append)
    try:
        yield batcher, sizes
    finally:
        batcher.stop()


def value(future: Future[Features]) -> float:
    features = future.result(SECONDS)
    assert features.maps.shape[0] == features.pooled.shape[0] == 1
    assert features.maps.ravel()[0] == features.pooled.ravel()[0]
    return float(features.pooled.ravel()[0])


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("max_batch", [1, 5, 64])
def test_every_image_of_every_caller_gets_its_own_answer(workers: int, max_batch: int) -> None:
    with batching(encode, workers=workers, max_batch=max_batch) as (submit, sizes):

        def caller(number: int) -> list[float]:
            wanted = [number * 10 + i for i in range(number % 4 + 1)]
            return [value(future) for future in submit(images(*wanted))]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(caller, range(200)))
    assert answers == [[(n * 10 + i) * 2 for i in range(n % 4 + 1)] for n in range(200)]
    assert sum(sizes) == sum(map(len, answers))
    assert max(sizes) <= max_batch


def test_what_waits_becomes_one_batch_up_to_the_limit() -> None:
    gate = Gate()
    with batching(gate.encode, max_batch=4) as (submit, sizes):
        futures = submit(images(0))
        gate.wait_until_busy()
        for number in range(1, 7):
            futures += submit(images(number))
        gate.open.set()
        assert [value(future) for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    assert sizes == [1, 4, 2]


def test_idle_worker_does_not_wait_for_more() -> None:
    with batching(encode, max_batch=64) as (submit, sizes):
        assert value(submit(images(3))[0]) == 6
        assert sizes == [1]


def test_error_is_delivered_to_every_image_of_the_batch_and_to_no_other() -> None:
    gate = Gate()

    def fails_on_seven(batch: NDArray[np.float32]) -> Features:
        answer = gate.encode(batch)
        if (batch == 7).any():
            raise MemoryError("too much")
        return answer

    with batching(fails_on_seven, max_batch=2) as (submit, _):
        before = submit(images(1))
        gate.wait_until_busy()
        failing = submit(images(2, 7))
        after = submit(images(3))
        gate.open.set()
        assert value(before[0]) == 2
        for future in failing:
            with pytest.raises(MemoryError, match="too much"):
                future.result(SECONDS)
        assert value(after[0]) == 6, "the worker must outlive an error"


def test_images_whose_caller_has_gone_are_not_encoded() -> None:
    gate = Gate()
    with batching(gate.encode, max_batch=8) as (submit, sizes):
        running = submit(images(1))
        gate.wait_until_busy()
        gone, stays = submit(images(2, 3))
        assert gone.cancel()
        gate.open.set()
        assert value(stays) == 6
        assert value(running[0]) == 2
    assert sizes == [1, 1]


@pytest.mark.parametrize("workers", [1, 3])
def test_stop_finishes_what_was_submitted_and_then_refuses(workers: int) -> None:
    gate = Gate()
    with batching_for_any(workers=workers, max_batch=2) as (batcher, _):
        futures = batcher.submit(gate.encode, images(*range(20)))
        gate.wait_until_busy()
        stopper = threading.Thread(target=batcher.stop)
        stopper.start()
        gate.open.set()
        stopper.join(SECONDS)
        assert not stopper.is_alive()
        assert all(future.done() for future in futures)
        assert [value(future) for future in futures] == [2 * n for n in range(20)]
        with pytest.raises(RuntimeError):
            batcher.submit(gate.encode, images(1))


def test_stop_of_an_idle_batcher_ends_its_threads() -> None:
    before = threading.active_count()
    with batching(encode, workers=5):
        assert threading.active_count() == before + 5
    assert threading.active_count() == before


def test_features_of_one_image_do_not_keep_those_of_its_batch() -> None:
    gate = Gate()
    with batching(gate.encode, max_batch=4) as (submit, sizes):
        first = submit(images(0))
        gate.wait_until_busy()
        together = submit(images(1, 2, 3))
        gate.open.set()
        features = [future.result(SECONDS) for future in (*first, *together)]
    assert sizes == [1, 3]
    assert all(of.maps.base is None and of.pooled.base is None for of in features)


def test_images_for_different_encoders_never_share_a_batch() -> None:
    gate = Gate()

    def thrice(batch: NDArray[np.float32]) -> Features:
        return Features(batch[:, :1, :1] * 3, batch[:, 0, 0] * 3)

    with batching_for_any(workers=1, max_batch=8) as (batcher, sizes):
        futures = batcher.submit(gate.encode, images(0))
        gate.wait_until_busy()
        for number in range(1, 7):
            futures += batcher.submit((encode, thrice)[number % 2], images(number))
        gate.open.set()
        assert [value(future) for future in futures] == [0, 3, 4, 9, 8, 15, 12]
    assert sizes == [1, 3, 3]
