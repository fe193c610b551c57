"""Which requests are let in: those that will not wait too long.

How long a request would wait is known from the images before it and from what images cost lately
(Little, 1961): those that are read and those that are only shown each by themselves. All of it
happens on the event loop, before the body is read.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass

from app import metrics
from app.inference.workers import Turn
from app.problems import Refusal

_FIRST_GUESS_SECONDS = 0.05  # of work on an image, until some were seen
_MEMORY = 0.05  # weight of the newest request in the mean
_PART = 0.5  # of the wait, after which a place is likely to be free again


@dataclass(frozen=True)
class Capacity:
    """What may wait: for so many seconds, so many requests, with so many bytes of bodies and of
    pixels."""

    workers: int
    seconds: float
    requests: int
    bytes: int


@dataclass
class _Kind:
    """What an image of a kind of request costs, and how many of them are under way."""

    seconds: float = _FIRST_GUESS_SECONDS
    images: int = 0

    def learn(self, newest: float) -> None:
        self.seconds += _MEMORY * (newest - self.seconds)


@dataclass(eq=False)
class Admitted:
    """A request that was let in, until it is answered and released."""

    turn: Turn
    bytes: int
    until: float | None  # its deadline, of ``time.monotonic``
    kind: str
    images: int = 1  # until its files are known


class Admission:
    """Counts what is under way; used on the event loop only."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._kinds: defaultdict[str, _Kind] = defaultdict(_Kind)
        self._bytes = 0
        self._requests = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._requests == 0

    @property
    def has_spare_worker(self) -> bool:
        """Whether a worker has nothing to do. Any thread may ask."""
        return self._requests < self._capacity.workers

    @property
    def expected_wait(self) -> float:
        """Seconds that a request would wait now for its first turn, as far as is known."""
        return 0.0 if self.has_spare_worker else self._work() / self._capacity.workers

    def admit(self, length: int, patience: float | None, kind: str = "") -> Admitted:
        """Let a request in whose body has ``length`` bytes and that must be answered within
        ``patience`` seconds; images of one ``kind`` cost about the same. Raises ``Refusal``
        (``overloaded``) with the time to try again."""
        wait, capacity = self.expected_wait, self._capacity
        longest = capacity.seconds if patience is None else min(capacity.seconds, patience)
        metrics.EXPECTED_WAIT.set(wait)
        if wait > longest or self._requests >= capacity.requests:
            raise self._overloaded("Too many images wait")
        if self._bytes and self._bytes + length > capacity.bytes:
            raise self._overloaded("Too many bytes of images wait")
        until = None if patience is None else time.monotonic() + patience
        admitted = Admitted(Turn(), length, until, kind)
        self._requests += 1
        self._bytes += length
        self._kinds[kind].images += admitted.images
        self._publish()
        return admitted

    def hold(self, admitted: Admitted, length: int) -> None:
        """So many bytes turned out to be held for the request, at least: a body in chunks does not
        say before, one that is packed has more than it says, and pixels are more than their file.

        Raises ``Refusal`` (``overloaded``) if that is too much beside the others.
        """
        more = max(0, length - admitted.bytes)
        others = self._bytes - admitted.bytes
        if more and others and others + length > self._capacity.bytes:
            raise self._overloaded("Too many bytes of images wait")
        self._bytes += more
        admitted.bytes += more

    def expect(self, admitted: Admitted, images: int) -> None:
        """The request turned out to have so many images.

        Raises ``Refusal`` (``overloaded``) if they could not be done by its deadline.
        """
        kind, more = self._kinds[admitted.kind], images - admitted.images
        if admitted.until is not None:
            work = self._work() + more * kind.seconds
            if images > 1 and time.monotonic() + work / self._capacity.workers > admitted.until:
                raise self._overloaded("So many images cannot be done by the deadline")
        kind.images += more
        admitted.images = images
        self._publish()

    def answer(self, admitted: Admitted) -> None:
        """There is an answer, or none will be: the next may have the place, but what is held stays
        until the answer was sent."""
        self._requests -= 1
        kind = self._kinds[admitted.kind]
        kind.images -= admitted.images
        if admitted.turn.busy_seconds and not admitted.turn.abandoned:
            kind.learn(admitted.turn.busy_seconds / admitted.images)
        self._publish()

    def release(self, admitted: Admitted) -> None:
        """After ``answer``: what was held for the request is let go."""
        self._bytes -= admitted.bytes

    def _work(self) -> float:
        """Seconds of a worker that all images under way cost."""
        return sum(kind.images * kind.seconds for kind in self._kinds.values())

    def _overloaded(self, why: str) -> Refusal:
        retry = max(1, math.ceil(_PART * self.expected_wait))
        return Refusal("overloaded", f"{why}; try again in {retry} s.", retry_after=retry)

    def _publish(self) -> None:
        metrics.IN_FLIGHT.set(self._requests)
        metrics.WAITING_IMAGES.set(sum(kind.images for kind in self._kinds.values()))
