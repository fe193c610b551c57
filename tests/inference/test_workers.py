"""Workers: fair turns, work begun is finished first, nothing is done for nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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


LATER = 3600.0  # of a pace: images of a series are due after everything that comes meanwhile


def order_of(pace: float, *requests: str) -> str:
    """What a single worker does first: a letter for each image of each request, which all came,
    one after the other, while it was busy."""
    workers, done = Workers(1, pace=pace), list[str]()
    with held(workers):
        pieces = []
        for images in requests:
            turn = Turn()
            pieces += [workers.submit(turn, lambda n=name: done.append(n)) for name in images]
    for piece in pieces:
        piece.result(SECONDS)
    workers.stop()
    return "".join(done)


def test_requests_of_one_image_are_done_in_the_order_they_came() -> None:
    assert order_of(LATER, *"abcde") == "abcde"


def test_single_image_does_not_wait_for_all_of_a_series_that_came_before() -> None:
    assert order_of(LATER, "SSSSS", "a", "b", "c") == "SabcSSSS"


def test_two_series_are_read_side_by_side() -> None:
    assert order_of(LATER, "1111", "2222") == "12121212"


def test_series_is_not_put_off_by_the_images_that_come_while_it_is_read() -> None:
    """Its last image is due a moment after its first, whatever comes after that moment."""
    assert order_of(0.0, "a", "SSSSS", "b", "c") == "aSSSSSbc"


def test_request_whose_images_are_done_is_finished_before_later_ones_begin() -> None:
    workers, done = Workers(1, pace=0.0), list[str]()
    series = Turn()
    for _ in range(8):
        workers.submit(series, lambda: None).result(SECONDS)
    with held(workers):
        pieces = [workers.submit(Turn(), lambda: done.append("other")) for _ in range(3)]
        pieces.append(workers.submit(series, lambda: done.append("answer"), image=False))
    for piece in pieces:
        piece.result(SECONDS)
    workers.stop()
    assert done[0] == "answer"


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


def test_stop_ends_spare_threads_that_found_every_place_taken() -> None:
    workers = Workers(1, spare=2)
    with held(workers):
        last = workers.submit(Turn(), lambda: "done")
        stopping = threading.Thread(target=workers.stop, daemon=True)
        stopping.start()
        while not workers._stopping:
            stopping.join(0.001)
    assert last.result(SECONDS) == "done"
    stopping.join(SECONDS / 4)
    assert not stopping.is_alive()


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_piece_cost_is_known_when_it_is_done(fails: bool) -> None:
    workers, turn, known = Workers(1), Turn(), list[float]()

    def work() -> None:
        if fails:
            raise ValueError

    with held(workers):
        piece = workers.submit(turn, work)
        piece.add_done_callback(lambda _: known.append(turn.busy_seconds))
    workers.stop()
    assert known[0] > 0
