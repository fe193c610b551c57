"""The archive is gone for an hour of the bridge's clock, which libfaketime has run faster."""

from __future__ import annotations

from pathlib import Path

from tests.bridge.outage import hospital_at, outage

SPEED = 120  # half a minute for the hour
MINUTES = 60


def test_an_hour_without_the_archive_loses_no_study_and_doubles_none(
    bundle_folder: Path, tmp_path: Path
) -> None:
    """Studies arrive before and meanwhile; the log, memory and pauses stay within bounds."""
    with hospital_at(SPEED, bundle_folder, tmp_path) as hospital:
        seen = outage(hospital, MINUTES)
    seen.check(SPEED)
