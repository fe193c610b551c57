"""Who is let in: those that will not wait too long, whatever the others are like."""

from __future__ import annotations

from typing import Any

import pytest

from app.inference.admission import Admission, Admitted, Capacity
from app.problems import Refusal


def admission(**changed: Any) -> Admission:
    wanted = {"workers": 2, "seconds": 1.0, "requests": 1000, "bytes": 10**9} | changed
    return Admission(Capacity(**wanted))


def answer(door: Admission, admitted: Admitted, seconds: float) -> None:
    """The request was answered after so much work."""
    admitted.turn.busy_seconds = seconds
    leave(door, admitted)


def leave(door: Admission, admitted: Admitted) -> None:
    """The request is over."""
    door.answer(admitted)
    door.release(admitted)


def taught(seconds_per_image: float, **changed: Any) -> Admission:
    """One that has seen what images cost."""
    door = admission(**changed)
    for _ in range(200):
        answer(door, door.admit(0, None), seconds_per_image)
    return door


def let_in(door: Admission, most: int = 5000, length: int = 0) -> int:
    """How many requests of one image are let in before the first is refused."""
    for count in range(most):
        try:
            door.admit(length, None)
        except Refusal:
            return count
    return most


@pytest.mark.parametrize("cost", [0.02, 0.1])
def test_as_many_are_let_in_as_are_answered_within_the_longest_wait(cost: float) -> None:
    door = taught(cost, seconds=1.0)
    assert let_in(door) == pytest.approx(2 * 1.0 / cost, abs=2)


def test_idle_service_lets_in_whatever_it_costs() -> None:
    assert let_in(taught(60.0, workers=2, seconds=1.0)) == 2


def test_expensive_images_shorten_the_queue_and_cheap_ones_lengthen_it_again() -> None:
    door = taught(0.02)
    for _ in range(200):
        answer(door, door.admit(0, None), 0.2)
    assert door.admit(0, None)
    assert let_in(door) < 15


def test_series_counts_with_all_of_its_images_once_they_are_known() -> None:
    door = taught(0.1, workers=1, seconds=1.0)
    series = door.admit(0, None)
    door.expect(series, 16)
    with pytest.raises(Refusal) as caught:
        door.admit(0, None)
    assert caught.value.retry_after == 1
    leave(door, series)
    assert door.admit(0, None)


def test_series_needs_no_more_room_than_a_single_image_to_be_let_in() -> None:
    """Else single images would take every place that becomes free."""
    door = taught(0.1, workers=1, seconds=1.0)
    for _ in range(9):
        door.admit(0, None)
    series = door.admit(0, None)
    door.expect(series, 16)


def test_impatient_request_is_refused_where_a_patient_one_waits() -> None:
    door = taught(0.1, workers=1, seconds=1.0)
    for _ in range(5):
        door.admit(0, None)
    with pytest.raises(Refusal):
        door.admit(0, 0.3)
    assert door.admit(0, 0.9)


def test_refused_request_is_told_when_to_come_again() -> None:
    door = taught(1.0, workers=1, seconds=20.0)
    for _ in range(21):
        door.admit(0, None)
    with pytest.raises(Refusal) as caught:
        door.admit(0, None)
    assert 5 <= (caught.value.retry_after or 0) <= 21


def test_bodies_together_are_limited_but_one_alone_is_not() -> None:
    door = admission(bytes=100)
    alone = door.admit(1000, None)
    with pytest.raises(Refusal):
        door.admit(1, None)
    leave(door, alone)
    assert let_in(door, length=30) == 3


def test_body_of_unknown_length_counts_with_what_has_come_of_it() -> None:
    door = admission(bytes=100)
    first, second = door.admit(0, None), door.admit(30, None)
    door.hold(first, 40)
    door.hold(first, 70)
    door.hold(second, 30)
    with pytest.raises(Refusal) as caught:
        door.hold(first, 71)
    assert caught.value.code == "overloaded"
    leave(door, second)
    door.hold(first, 1000)  # alone
    leave(door, first)
    assert let_in(door, length=30) == 3


def test_requests_together_are_limited() -> None:
    assert let_in(taught(1e-6, requests=7)) == 7


def test_what_was_abandoned_teaches_nothing() -> None:
    door = taught(0.02)
    for _ in range(200):
        gone = door.admit(0, None)
        gone.turn.abandoned = True
        answer(door, gone, 1e-9)
    assert let_in(door) == pytest.approx(100, abs=2)


def test_series_that_cannot_be_done_by_its_deadline_is_refused_before_it_costs_anything() -> None:
    door = taught(0.1, workers=1)
    in_time, late = door.admit(0, 5.0), door.admit(0, 1.0)
    door.expect(in_time, 16)
    with pytest.raises(Refusal) as caught:
        door.expect(late, 16)
    assert caught.value.code == "overloaded"
    leave(door, late)
    leave(door, in_time)
    assert door.expected_wait == 0


def test_answer_that_is_not_sent_yet_keeps_its_bytes_but_not_its_place() -> None:
    door = taught(0.1, workers=1, seconds=1.0, requests=1, bytes=100)
    slow = door.admit(10, None)
    door.hold(slow, 90)
    door.answer(slow)
    assert door.idle
    assert door.expected_wait == 0
    with pytest.raises(Refusal) as caught:
        door.admit(20, None)
    assert caught.value.code == "overloaded"
    small = door.admit(10, None)
    with pytest.raises(Refusal):
        door.hold(small, 11)
    door.release(slow)
    door.hold(small, 11)


def test_expensive_images_of_one_kind_say_nothing_of_another() -> None:
    door = taught(0.02, seconds=1.0)
    for _ in range(200):
        answer(door, door.admit(0, None, "shown"), 2.0)
    assert let_in(door) == pytest.approx(100, abs=2)


def test_images_of_every_kind_are_waited_for() -> None:
    door = taught(0.02, seconds=1.0)
    for _ in range(200):
        answer(door, door.admit(0, None, "shown"), 1.0)
    door.admit(0, None, "shown")
    assert let_in(door) == pytest.approx(50, abs=2)
