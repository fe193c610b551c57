"""When a DICOM header says that an exam was made, and when this image of it.

Times are those of the clock on the wall. Offsets from UTC (0008,0201) are ignored: an exam's date
is the day that the hospital wrote down, and an offset would move late exams to the next one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from app.imaging.attributes import texts

_EARLIEST = datetime(1950, 1, 1)
_CLOCK_ERROR = timedelta(days=1)  # also what time zones can differ by
_DATE = r"([0-9]{4})([.-]?)([0-9]{2})\2([0-9]{2})"  # 2024.01.31 is of ACR-NEMA (PS3.5 6.2)
_TIME = r"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:\.([0-9]+))?)?)?"
_EXAM = (
    ("StudyDate", "StudyTime"),
    ("AcquisitionDateTime",),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
)
_IMAGE = (
    ("AcquisitionDateTime",),
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
)


@dataclass(frozen=True)
class ExamTimes:
    """``exam`` and ``acquired`` without time zone, at midnight where only the day is known.
    ``implausible`` when a date had to be passed over."""

    exam: datetime | None
    acquired: datetime | None
    implausible: bool


def exam_times_of(dataset: Dataset) -> ExamTimes:
    """The first plausible date of the exam and of the image: neither before 1950 nor in the
    future."""
    latest = datetime.now() + _CLOCK_ERROR
    skipped = False

    def first(candidates: tuple[tuple[str, ...], ...]) -> datetime | None:
        nonlocal skipped
        for date, *time in candidates:
            day = "\\".join(texts(dataset, date))
            if not day:
                continue
            clock = "\\".join(texts(dataset, time[0])) if time else ""
            found = _parsed_date_time(day) if not time else _parsed(day, clock)
            if found and _EARLIEST <= found <= latest:
                return found
            skipped = True
        return None

    exam, acquired = first(_EXAM), first(_IMAGE)
    return ExamTimes(exam, acquired, skipped)


def _parsed_date_time(value: str) -> datetime | None:
    """A DT value of at least a day (PS3.5 6.2), its offset cut off."""
    value = re.sub(r"[+-][0-9]{4}$", "", value) if len(value) > 10 else value
    return _parsed(value[:8], value[8:])


def _parsed(day: str, clock: str) -> datetime | None:
    """DA and TM values; a time that is none leaves the day."""
    date = re.fullmatch(_DATE, day)
    if date is None:
        return None
    time = re.fullmatch(_TIME, clock)
    hour, minute, second, fraction = time.groups() if time else (None,) * 4
    whole = (int(date[1]), int(date[3]), int(date[4]))
    try:
        return datetime(
            *whole,
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),  # 60 is a leap second
            int((fraction or "")[:6].ljust(6, "0")),
        )
    except ValueError:
        pass
    try:
        return datetime(*whole)
    except ValueError:
        return None
