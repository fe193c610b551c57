"""Which studies are complete and still to be read, as far as this process knows.

Only memory: what it forgets at a restart it learns again from the archive. Times are seconds of
one monotonic clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.bridge.dicomweb import Instance, Study

_RECHECK_SECONDS = 3600.0  # results that an archive has lost are noticed at the latest then
_LONGEST_POSTPONEMENT = 600.0


@dataclass
class _Entry:
    study: Study
    images: frozenset[Instance]
    unchanged_since: float
    looked_at: float
    outcome: Literal["done", "refused"] | None = None
    model: str = ""
    ignored: frozenset[str] = field(default_factory=frozenset)
    failures: int = 0
    not_before: float = 0.0


class Worklist:
    """The studies of the archive's list, each with its set of mammograms and what became of it."""

    def __init__(self, stable_seconds: float, first_postponement: float) -> None:
        self._stable_seconds = stable_seconds
        self._first_postponement = first_postponement
        self._entries: dict[str, _Entry] = {}

    def take(self, listed: Sequence[Study], now: float) -> list[Study]:
        """Take the archive's whole list. Answers the studies whose images must be asked for: those
        that are not settled, have another number of instances, or were not looked at for long."""
        self._entries = {s.uid: self._entries[s.uid] for s in listed if s.uid in self._entries}
        return [study for study in listed if self._is_stale(study, now)]

    def _is_stale(self, study: Study, now: float) -> bool:
        entry = self._entries.get(study.uid)
        return (
            entry is None
            or entry.outcome is None
            or study.instances is None
            or study.instances != entry.study.instances
            or now - entry.looked_at >= _RECHECK_SECONDS
        )

    def observe(self, study: Study, images: frozenset[Instance], now: float) -> None:
        """A study has these mammograms now."""
        entry = self._entries.get(study.uid)
        if entry is None or entry.images != images:
            self._entries[study.uid] = _Entry(study, images, now, now)
            return
        counted_anew = study.instances != entry.study.instances
        long_ago = now - entry.looked_at >= _RECHECK_SECONDS
        if entry.outcome == "done" and (counted_anew or long_ago):
            entry.outcome = None  # are its results still there?
        entry.study = study
        if long_ago or study.instances is not None:
            entry.looked_at = now

    def due(self, model: str, now: float) -> list[Study]:
        """Complete studies that ``model`` has not settled: those that failed least first, so that
        none blocks the others; then in the order of their dates, so that priors come first."""
        due = [
            entry
            for entry in self._entries.values()
            if entry.images
            and (entry.outcome is None or entry.model != model)
            and now - entry.unchanged_since >= self._stable_seconds
            and now >= entry.not_before
        ]
        due.sort(key=lambda entry: (entry.failures, entry.study.date, entry.study.uid))
        return [entry.study for entry in due]

    def images(self, uid: str) -> frozenset[Instance]:
        """The mammograms of a study when it was last looked at."""
        return self._entries[uid].images

    def ignored(self, uid: str, model: str) -> frozenset[str]:
        """The mammograms that ``model`` did not use when it read this set of them."""
        entry = self._entries[uid]
        return entry.ignored if entry.model == model else frozenset()

    def settle(
        self,
        uid: str,
        model: str,
        outcome: Literal["done", "refused"],
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        """``model`` has read, or refused, the study's present set of mammograms."""
        entry = self._entries[uid]
        entry.outcome, entry.model, entry.ignored = outcome, model, ignored
        entry.failures, entry.not_before = 0, 0.0

    def postpone(self, uid: str, now: float) -> None:
        """Reading failed; it is due again later, each time twice as much later."""
        entry = self._entries[uid]
        delay = self._first_postponement * 2 ** min(entry.failures, 30)
        entry.failures += 1
        entry.not_before = now + min(delay, _LONGEST_POSTPONEMENT)

    def waiting(self) -> int:
        """Studies with mammograms that are neither done nor refused."""
        return sum(1 for e in self._entries.values() if e.images and e.outcome is None)
