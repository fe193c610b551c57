"""The ``series`` part -> what it says of each file."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from app.api.schemas import SeriesIn
from app.api.uploads import Upload, first_fault
from app.imaging.facts import Stated
from app.problems import Refusal


def stated_of(files: Sequence[Upload], description: str) -> list[Stated]:
    """What the ``series`` part says of each file, in the order of the files."""
    try:
        series = SeriesIn.model_validate_json(description)
    except ValidationError as error:
        raise Refusal("invalid_series", first_fault(error)) from None
    place = {file.name: i for i, file in enumerate(files)}
    if len(place) < len(files):
        raise Refusal("ambiguous_file_name", "Two file parts have the same name.")
    dates = [exam.date for exam in series.exams]
    if len(set(dates)) < len(dates):
        raise Refusal("duplicate_exam_date", "Two exams of the series have the same date.")
    stated: dict[int, Stated] = {}
    for number, exam in enumerate(series.exams):
        views: Sequence[str | None] = exam.views or [None] * len(exam.files)
        if len(views) != len(exam.files):
            raise Refusal("invalid_series", f"exams.{number}: one view per file is needed.")
        for name, view in zip(exam.files, views, strict=True):
            if name not in place:
                raise Refusal("unknown_file", f"exams.{number} names a file that was not sent.")
            if place[name] in stated:
                raise Refusal("invalid_series", f"exams.{number}: a file is named twice.")
            stated[place[name]] = Stated(exam.date, series.laterality, view)
    missing = [i for i in range(len(files)) if i not in stated]
    if missing:
        raise Refusal("undescribed_file", f"File {missing[0]} of the request is in no exam.")
    return [stated[i] for i in range(len(files))]
