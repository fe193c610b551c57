"""Workers: fair turns, work begun is finished first, nothing is done for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from app.inference.workers import Abandoned, Turn, Workers

SECONDS = 20


@contextmanager
def held(workers: Workers) -> Iterator[None]:
    """Keep every one of a single worker's successors waiting, so that a queue builds up."""
    entered, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert let_go.wait(SECONDS)

    holding = workers.submit(Turn(), hold)
    assert entered.wait(SECONDS)
    try:
        yield
    finally:
        let_go.set()
        holding.result(SECONDS)


def order_of(queue: Callable[[Workers, list[str]], list[Future[None]]]) -> str:
    """What a single worker does first, of what is queued while it is busy."""
    workers, done = Workers(1), list[str]()
    with held(workers):
        pieces = queue(workers, done)
    for piece in pieces:
        piece.result(SECONDS)
    workers.stop()
    return "".join(done)


def test_requests_of_one_image_are_done_in_the_order_they_came() -> None:
    def queue(workers: Workers, done: list[str]) -> list[Future[None]]:
        return [workers.submit(Turn(), lambda n=n: done.append(n)) for n in "abcde"]

    assert order_of(queue) == "abcde"


def test_long_series_and_single_images_take_turns() -> None:
    def queue(workers: Workers, done: list[str]) -> list[Future[None]]:
        series = Turn()
        pieces = [workers.submit(series, lambda: done.append("S")) for _ in range(5)]
        return pieces + [workers.submit(Turn(), lambda: done.append("i")) for _ in range(3)]

    assert order_of(queue) == "SiiiSSSS"


def test_two_series_are_read_side_by_side() -> None:
    def queue(workers: Workers, done: list[str]) -> list[Future[None]]:
        first, second = Turn(), Turn()
        pieces = [workers.submit(first, lambda: done.append("1")) for _ in range(4)]
        return pieces + [workers.submit(second, lambda: done.append("2")) for _ in range(4)]

    assert order_of(queue) == "12121212"


def test_request_whose_images_are_done_is_finished_before_others_begin() -> None:
    workers, done = Workers(1), list[str]()
    series = Turn()
    workers.submit(series, lambda: None).result(SECONDS)
    with held(workers):
        pieces = [workers.submit(Turn(), lambda: done.append("other")) for _ in range(3)]
        pieces.append(workers.submit(series, lambda: done.append("answer"), more=False))
    for piece in pieces:
        piece.result(SECONDS)
    workers.stop()
    assert done[0] == "answer"


def test_request_after_an_idle_time_does_not_wait_for_what_it_missed() -> None:
    """Virtual time goes on with the work: who comes late is neither punished nor preferred."""
    workers, done = Workers(1), list[str]()
    for _ in range(50):
        workers.submit(Turn(), lambda: None).result(SECONDS)
    with held(workers):
        busy = Turn()
        pieces = [workers.submit(busy, lambda: done.append("S")) for _ in range(2)]
        pieces.append(workers.submit(Turn(), lambda: done.append("i")))
    for piece in pieces:
        piece.result(SECONDS)
    workers.stop()
    assert "".join(done) == "SiS"


def test_nothing_is_done_for_a_request_that_was_abandoned() -> None:
    workers, done = Workers(1), list[str]()
    gone, stays = Turn(), Turn()
    with held(workers):
        dropped = [workers.submit(gone, lambda: done.append("gone")) for _ in range(3)]
        kept = workers.submit(stays, lambda: done.append("stays"))
        gone.abandoned = True
    kept.result(SECONDS)
    workers.stop()
    assert done == ["stays"]
    assert all(piece.cancelled() for piece in dropped)


def test_piece_whose_caller_was_cancelled_is_not_begun() -> None:
    workers, done = Workers(1), list[str]()
    with held(workers):
        piece = workers.submit(Turn(), lambda: done.append("x"))
        assert piece.cancel()
    workers.submit(Turn(), lambda: None).result(SECONDS)
    workers.stop()
    assert done == []


def test_turn_says_between_two_steps_that_nobody_waits() -> None:
    turn = Turn()
    turn.check()
    turn.abandoned = True
    with pytest.raises(Abandoned):
        turn.check()


def test_error_reaches_its_caller_and_the_worker_lives_on() -> None:
    workers = Workers(1)

    def fail() -> None:
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        workers.submit(Turn(), fail).result(SECONDS)
    assert workers.submit(Turn(), lambda: 7).result(SECONDS) == 7
    workers.stop()


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_pieces_run_at_a_time_as_there_are_workers(count: int) -> None:
    """Spare threads do not add to it."""
    workers = Workers(count, spare=4)
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(count)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(SECONDS)  # until all workers are in here
        with lock:
            running -= 1

    for piece in [workers.submit(Turn(), work) for _ in range(count * 5)]:
        piece.result(SECONDS)
    workers.stop()
    assert most == count


def test_another_takes_the_place_of_a_worker_that_waits_elsewhere() -> None:
    workers = Workers(1, spare=1)
    arrived = threading.Event()

    def waits() -> str:
        with workers.elsewhere():
            assert arrived.wait(SECONDS), "the only worker was not given away"
        return "back"

    waiting = workers.submit(Turn(), waits)
    workers.submit(Turn(), arrived.set).result(SECONDS)
    assert waiting.result(SECONDS) == "back"
    workers.stop()


def test_stop_finishes_what_was_submitted_and_then_takes_no_more() -> None:
    workers = Workers(2)
    pieces = [workers.submit(Turn(), lambda n=n: n) for n in range(20)]
    workers.stop()
    assert [piece.result(0) for piece in pieces] == list(range(20))
    with pytest.raises(RuntimeError):
        workers.submit(Turn(), lambda: None)
