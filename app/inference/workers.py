"""Threads that compute, and whose work is next: every request gets its share.

The first image of a request is due when the request came, the others one after the other a moment
later each, and what is due first is done first. So a single image does not wait for all of a long
series that came just before it, and a series is not put off by all the single images that come
while it is read. What was begun is finished before anything later is.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

_PACE_SECONDS = 0.02  # about what an image costs


class Abandoned(Exception):
    """Nobody waits for the work any more: the client has gone, or the deadline has passed."""


@dataclass(eq=False)
class Turn:
    """One request at the workers. ``abandoned`` is set by whoever stops waiting for it."""

    abandoned: bool = False
    busy_seconds: float = 0.0  # of workers, so far
    due: float = field(default_factory=time.perf_counter)  # its next piece of work

    def check(self) -> None:
        """Raise ``Abandoned`` if nobody waits: before more work is spent on it."""
        if self.abandoned:
            raise Abandoned


@dataclass(order=True)
class _Piece:
    due: float
    number: int
    turn: Turn = field(compare=False)
    work: Callable[[], Any] = field(compare=False)
    done: Future[Any] = field(compare=False)


class Workers:
    """``count`` pieces of work run at a time. ``spare`` more threads take over for those that
    wait elsewhere, for a GPU. The images of a request are due ``pace`` seconds apart."""

    def __init__(self, count: int, *, spare: int = 0, pace: float = _PACE_SECONDS) -> None:
        self._count = count
        self._pace = pace
        self._busy = 0
        self._queue: list[_Piece] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{i}", daemon=True)
            for i in range(count + spare)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, turn: Turn, work: Callable[[], T], *, image: bool = True) -> Future[T]:
        """Queue a piece of ``turn``'s work, an ``image`` or something small around its images.

        A piece whose turn was abandoned is cancelled when its time comes.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._stopping:
                raise RuntimeError("the workers have stopped")
            heapq.heappush(self._queue, _Piece(turn.due, next(self._numbers), turn, work, done))
            if image:
                turn.due += self._pace
            self._changed.notify()
        return done

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """While the calling worker waits for something else, another may take its place."""
        with self._changed:
            self._busy -= 1
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._busy += 1  # at once: what it waited for was begun long ago

    def stop(self) -> None:
        """Finish what was submitted, then end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        finished = 0
        while piece := self._take(finished):
            self._do(piece)
            del piece  # and with it the bytes of an image, before the next one is waited for
            finished = 1

    def _take(self, finished: int) -> _Piece | None:
        """The next piece, after ``finished`` ones; None when stopping and nothing waits."""
        with self._changed:
            self._busy -= finished
            while True:
                if self._queue and self._busy < self._count:
                    piece = heapq.heappop(self._queue)
                    if piece.turn.abandoned or not piece.done.set_running_or_notify_cancel():
                        piece.done.cancel()
                        continue
                    self._busy += 1
                    return piece
                if self._stopping and not self._queue:
                    self._changed.notify_all()  # the spare threads, which saw work when it began
                    return None
                self._changed.wait()

    @staticmethod
    def _do(piece: _Piece) -> None:
        turn, start = piece.turn, time.perf_counter()
        try:
            result = piece.work()
        except BaseException as error:  # delivered to whoever waits; the worker lives on
            turn.busy_seconds += time.perf_counter() - start
            piece.done.set_exception(error)
            del piece  # held by the error's traceback, it would keep the error, and its file
        else:  # whoever waits may look at it at once
            turn.busy_seconds += time.perf_counter() - start
            piece.done.set_result(result)
