"""Two sides take turns, so that neither has the better hour."""

from __future__ import annotations

from benchmarks.measured import Round, Side, turns


def side(name: str, told: list[str]) -> Side:
    def run(seconds: float) -> Round:
        told.append(name)
        return Round(seconds, [0.0], 0.0)

    return run


def test_each_time_another_side_begins() -> None:
    told: list[str] = []
    rounds = turns(side("a", told), side("b", told), 3, 1.0)
    assert told == ["a", "b", "b", "a", "a", "b"]
    assert len(rounds) == 3


def test_no_round_begins_after_the_longest_time() -> None:
    told: list[str] = []
    assert turns(side("a", told), side("b", told), 3, 1.0, longest_seconds=-1.0) == []
    assert told == []
