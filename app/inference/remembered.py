"""Images that were seen before: their features need not be computed again.

A patient's priors are sent with each of her exams. What the model sees depends on nothing but the
bytes of a file, so what was made of them is kept, by their SHA-256, in memory and for a while.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from app import metrics

V = TypeVar("V")


class Remembered(Generic[V]):
    """The values used last, of at most ``most_bytes`` in all; thread-safe."""

    def __init__(self, most_bytes: int, size_of: Callable[[V], int]) -> None:
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._bytes = 0
        self._values: OrderedDict[object, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> V | None:
        """The value of ``key``, if it is still known."""
        if not self._most_bytes:
            return None
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
        metrics.REMEMBERED.labels("miss" if value is None else "hit").inc()
        return value

    def put(self, key: object, value: V) -> None:
        """Remember ``value``, and forget what was not used for the longest time."""
        with self._lock:
            if key in self._values or self._size_of(value) > self._most_bytes:
                return
            self._values[key] = value
            self._bytes += self._size_of(value)
            while self._bytes > self._most_bytes:
                _, oldest = self._values.popitem(last=False)
                self._bytes -= self._size_of(oldest)
            metrics.REMEMBERED_BYTES.set(self._bytes)
