"""A short run of the fuzzer; `make fuzz` is the long one."""

from __future__ import annotations

from app.problems import PROBLEMS
from tests.fuzz_decode import run

CASES = 4000


def test_mutated_files_are_decoded_or_refused_and_nothing_else() -> None:
    report = run(first=0, count=CASES)
    assert report.faults == []
    assert report.cases == sum(report.outcomes.values()) == CASES
    assert set(report.outcomes) <= {"decoded", *PROBLEMS}
    assert report.outcomes["decoded"] > CASES / 20  # mutated, not shredded
    assert report.outcomes["broken_image"] > CASES / 20
    assert report.slowest_seconds < 5
    assert report.growth_mb < 64
