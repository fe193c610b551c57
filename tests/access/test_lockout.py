"""After too many failures one must wait: for a user at an address, and for an address."""

from __future__ import annotations

from app.access import lockout
from app.access.lockout import (
    LOCKED_SECONDS,
    MOST_OF_ADDRESS,
    MOST_OF_USER,
    WINDOW_SECONDS,
    Lockout,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_five_failures_lock_the_user_at_the_address_and_nobody_else() -> None:
    lock = Lockout(Clock())
    for _ in range(MOST_OF_USER):
        assert lock.seconds("ana", HERE) == 0
        lock.failed("ana", HERE)
    assert lock.seconds("ana", HERE) == LOCKED_SECONDS
    assert lock.seconds("ana", THERE) == 0
    assert lock.seconds("ben", HERE) == 0


def test_a_lock_ends_after_its_time_and_counting_begins_again() -> None:
    clock = Clock()
    lock = Lockout(clock)
    for _ in range(MOST_OF_USER):
        lock.failed("ana", HERE)
    clock.now += LOCKED_SECONDS - 0.5
    assert lock.seconds("ana", HERE) == 1
    clock.now += 0.5
    assert lock.seconds("ana", HERE) == 0
    lock.failed("ana", HERE)
    assert lock.seconds("ana", HERE) == 0


def test_failures_that_are_long_ago_do_not_count() -> None:
    clock = Clock()
    lock = Lockout(clock)
    for _ in range(MOST_OF_USER - 1):
        lock.failed("ana", HERE)
    clock.now += WINDOW_SECONDS
    lock.failed("ana", HERE)
    assert lock.seconds("ana", HERE) == 0


def test_a_login_forgets_the_failures_of_the_user_but_not_of_the_address() -> None:
    lock = Lockout(Clock())
    for _ in range(MOST_OF_ADDRESS):
        assert lock.seconds("mallory", HERE) == 0
        lock.failed("mallory", HERE)
        lock.succeeded("mallory", HERE)
    assert lock.seconds("mallory", HERE) > 0


def test_twenty_failures_with_any_names_lock_the_address() -> None:
    lock = Lockout(Clock())
    for number in range(MOST_OF_ADDRESS):
        lock.failed(f"user{number}", HERE)
    assert lock.seconds("ana", HERE) > 0
    assert lock.seconds("ana", THERE) == 0


def test_addresses_of_one_ipv6_network_are_one_and_mapped_ipv4_is_ipv4() -> None:
    lock = Lockout(Clock())
    for number in range(MOST_OF_ADDRESS):
        lock.failed(f"user{number}", f"2001:db8::{number:x}")
        lock.failed(f"user{number}", f"::ffff:{HERE}")
    assert lock.seconds("ana", "2001:db8::ffff:1") > 0
    assert lock.seconds("ana", "2001:db8:0:1::1") == 0
    assert lock.seconds("ana", HERE) > 0
    assert lock.seconds("ana", f"::ffff:{THERE}") == 0


def test_whatever_is_no_address_is_one_place() -> None:
    lock = Lockout(Clock())
    for number in range(MOST_OF_ADDRESS):
        lock.failed(f"user{number}", f"made up {number} " + "x" * 60_000)
    assert lock.seconds("ana", "made up, too") > 0
    assert lock.seconds("ana", HERE) == 0
    assert all(len(key) < 100 for key in [*lock._failures, *lock._locked_until])


def test_memory_is_bounded_whatever_is_tried() -> None:
    lock = Lockout(Clock())
    for number in range(lockout._MOST_REMEMBERED + 5000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        for _ in range(MOST_OF_USER + 1):
            lock.failed("x" * 64, address)
    assert len(lock._failures) == lockout._MOST_REMEMBERED
    assert len(lock._locked_until) == lockout._MOST_REMEMBERED
