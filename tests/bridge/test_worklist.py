"""When a study is due: complete, not settled, not just failed. Times are seconds."""

from __future__ import annotations

from dataclasses import replace

from app.bridge.dicomweb import Instance, Study
from app.bridge.worklist import Worklist

ONE = Study("1", "20240101", "p", "", instances=2)
TWO = Study("2", "20230101", "q", "", instances=2)
HOUR = 3600.0


def images(*uids: str) -> frozenset[Instance]:
    return frozenset(Instance(uid, "1.1", "MG", "") for uid in uids)


def seen(*studies: Study, now: float = 0.0) -> Worklist:
    worklist = Worklist(stable_seconds=60, first_postponement=10)
    look(worklist, *studies, now=now)
    return worklist


def look(worklist: Worklist, *studies: Study, now: float, **found: frozenset[Instance]) -> None:
    """One look at the archive: every study has images a and b, unless ``found`` is given."""
    for study in worklist.take(studies, now):
        worklist.observe(study, found.get("found", images("a", "b")), now)


def due(worklist: Worklist, now: float, model: str = "m") -> list[str]:
    return [study.uid for study in worklist.due(model, now)]


def test_a_study_is_due_when_its_images_have_been_the_same_for_long_enough() -> None:
    worklist = seen(ONE)
    assert due(worklist, 59.9) == []
    assert due(worklist, 60) == ["1"]


def test_every_new_image_starts_the_wait_again() -> None:
    worklist = seen(ONE)
    look(worklist, ONE, now=50, found=images("a", "b", "c"))
    assert due(worklist, 109.9) == []
    assert due(worklist, 110) == ["1"]


def test_what_is_settled_is_asked_for_again_only_when_the_archive_counts_anew() -> None:
    worklist = seen(ONE)
    worklist.settle("1", "m", "done")
    assert worklist.take([ONE], 100) == []
    more = replace(ONE, instances=3)
    assert worklist.take([more], 100) == [more]


def test_a_done_study_with_a_new_image_is_due_once_more() -> None:
    worklist = seen(ONE)
    worklist.settle("1", "m", "done")
    look(worklist, replace(ONE, instances=3), now=100, found=images("a", "b", "c"))
    assert due(worklist, 159.9) == []
    assert due(worklist, 160) == ["1"]


def test_a_done_study_is_looked_through_when_anything_was_added_or_lost() -> None:
    """Its results may be what was lost."""
    worklist = seen(ONE)
    worklist.settle("1", "m", "done")
    look(worklist, replace(ONE, instances=1), now=100)
    assert due(worklist, 100) == ["1"]


def test_a_done_study_is_looked_through_every_hour_whatever_the_archive_counts() -> None:
    for study in (ONE, replace(ONE, instances=None)):
        worklist = seen(study)
        worklist.settle("1", "m", "done")
        for now in range(600, int(HOUR), 600):
            look(worklist, study, now=now)
            assert due(worklist, now) == []
        look(worklist, study, now=HOUR)
        assert due(worklist, HOUR) == ["1"]


def test_an_archive_that_does_not_count_is_asked_for_the_images_each_time() -> None:
    uncounted = replace(ONE, instances=None)
    worklist = seen(uncounted)
    worklist.settle("1", "m", "done")
    assert worklist.take([uncounted], 1) == [uncounted]
    look(worklist, uncounted, now=100, found=images("a", "b", "c"))
    assert due(worklist, 160) == ["1"]


def test_a_refused_study_stays_refused_until_its_images_change() -> None:
    worklist = seen(ONE)
    worklist.settle("1", "m", "refused")
    look(worklist, replace(ONE, instances=9), now=HOUR)
    look(worklist, replace(ONE, instances=9), now=3 * HOUR)
    assert due(worklist, 3 * HOUR) == []
    look(worklist, replace(ONE, instances=10), now=3 * HOUR, found=images("a"))
    assert due(worklist, 3 * HOUR + 60) == ["1"]


def test_another_model_reads_everything_again() -> None:
    worklist = seen(ONE, TWO)
    worklist.settle("1", "m", "done", ignored=frozenset({"a"}))
    worklist.settle("2", "m", "refused")
    assert due(worklist, 60, "m") == []
    assert due(worklist, 60, "new") == ["2", "1"]
    assert worklist.ignored("1", "m") == {"a"}
    assert worklist.ignored("1", "new") == frozenset()


def test_a_failed_study_waits_twice_as_long_each_time_and_lets_the_others_pass() -> None:
    worklist = seen(ONE, TWO)
    assert due(worklist, 100) == ["2", "1"]
    worklist.postpone("2", 100)
    assert due(worklist, 109.9) == ["1"]
    assert due(worklist, 110) == ["1", "2"]
    worklist.postpone("2", 110)
    assert due(worklist, 129.9) == ["1"]
    assert due(worklist, 130) == ["1", "2"]


def test_no_study_is_given_up_or_put_off_for_more_than_ten_minutes() -> None:
    worklist = seen(ONE)
    for _ in range(2000):
        worklist.postpone("1", 100)
    assert due(worklist, 699) == []
    assert due(worklist, 700) == ["1"]


def test_older_studies_come_first() -> None:
    assert due(seen(ONE, TWO), 60) == ["2", "1"]


def test_a_study_without_mammograms_is_never_due() -> None:
    worklist = Worklist(stable_seconds=60, first_postponement=10)
    look(worklist, ONE, now=0, found=frozenset())
    assert due(worklist, HOUR) == []
    assert worklist.waiting() == 0


def test_what_the_archive_no_longer_lists_is_forgotten() -> None:
    worklist = seen(ONE, TWO)
    look(worklist, ONE, now=60)
    assert due(worklist, 60) == ["1"]
    assert worklist.waiting() == 1
