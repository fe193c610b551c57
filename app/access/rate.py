"""Who asks too often and must wait: a bucket of tokens each. In memory, of one process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_REMEMBERED = 10_000  # about 2 MB


class Rate:
    """``per_minute`` requests on average, and as many at once. ``clock`` tells seconds."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._a_second = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds(self, caller: str) -> int:
        """Count a request of ``caller``: 0 if it may go on, else how long to wait."""
        now = self._clock()
        kept = self._buckets.pop(caller, (self._most, now))
        left = min(self._most, kept[0] + (now - kept[1]) * self._a_second)
        wait = math.ceil(round((1 - left) / self._a_second, 6)) if left < 1 else 0
        self._buckets[caller] = kept if wait else (left - 1, now)
        if len(self._buckets) > _MOST_REMEMBERED:
            self._buckets.popitem(last=False)  # who has not asked for longest
        return wait
