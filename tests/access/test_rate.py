"""How often somebody may ask."""

from __future__ import annotations

from app.access import rate
from app.access.rate import Rate


class Hands:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_may_come_at_once_and_then_one_each_time_there_is_another() -> None:
    clock = Hands()
    limit = Rate(6, clock)
    assert [limit.seconds("ana") for _ in range(7)] == [0] * 6 + [10]
    assert limit.seconds("ben") == 0
    clock.now = 4.0
    assert limit.seconds("ana") == 6
    clock.now = 10.0
    assert [limit.seconds("ana") for _ in range(2)] == [0, 10]
    clock.now = 10_000.0
    assert [limit.seconds("ana") for _ in range(7)] == [0] * 6 + [10]


def test_who_is_refused_does_not_wait_longer_for_it() -> None:
    clock = Hands()
    limit = Rate(1, clock)
    limit.seconds("ana")
    for second in range(1, 60):
        clock.now = float(second)
        assert limit.seconds("ana") == 60 - second
    clock.now = 60.0
    assert limit.seconds("ana") == 0


def test_memory_is_bounded_and_who_asks_all_the_time_is_not_forgotten() -> None:
    limit = Rate(2, Hands())
    waits = []
    for number in range(3 * rate._MOST_REMEMBERED):
        limit.seconds(f"address {number}")
        waits.append(limit.seconds("ana"))
    assert waits[:3] == [0, 0, 30]
    assert set(waits[2:]) == {30}
    assert len(limit._buckets) <= rate._MOST_REMEMBERED
