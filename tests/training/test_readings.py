"""A bundle reads a manifest: what is kept of a stopped run, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bundle import Bundle
from app.inference.probability import calibrated
from tests.pictures import png
from tests.training.cohort import write_cohort
from training import readings
from training.config import DataConfig
from training.manifest import ManifestError, fingerprint
from training.readings import READINGS, Reading, breast_cases, check, image_cases, read_all


def read(manifest: Path, run: Path, bundle: Bundle) -> tuple[list[Reading], dict[str, str]]:
    faults: list[str] = []
    data = DataConfig(manifest=manifest, positive_class="malignant")
    asked = check(bundle.folder, data, "all", 0, faults)
    assert asked is not None, faults
    run.mkdir(exist_ok=True)
    sessions = readings.start_sessions(bundle, "cpu")
    return read_all(run, bundle, sessions, asked.breasts, fingerprint(asked.images))


def of_images(found: list[Reading], bundle: Bundle) -> dict[str, float]:
    cases = image_cases(found, bundle.manifest)
    return dict(zip(cases.names, map(float, cases.probability), strict=True))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "images", 4)


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The breasts that were really read, by name."""
    names: list[str] = []
    read_one = readings._read

    def counted(*arguments: Any) -> Any:
        names.append(arguments[-1].name)
        return read_one(*arguments)

    monkeypatch.setattr(readings, "_read", counted)
    return names


def test_stopped_run_goes_on_where_it_was(
    manifest: Path, tmp_path: Path, bundle: Bundle, read_again: list[str]
) -> None:
    """Without the last reading, and with half a line of it, as a kill leaves them."""
    before, _ = read(manifest, tmp_path / "run", bundle)
    assert sorted(read_again) == ["p0-L", "p0-R", "p1-L", "p1-R", "p2-L", "p2-R", "p3-L"]
    store = tmp_path / "run" / READINGS
    lines = store.read_text().splitlines()
    store.write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    read_again.clear()
    for expected in (1, 1):  # and the second time nothing
        after, _ = read(manifest, tmp_path / "run", bundle)
        assert len(read_again) == expected
        for one, other in zip(before, after, strict=True):
            assert one.series == other.series
            np.testing.assert_allclose(one.step_logits, other.step_logits, atol=1e-5)
            np.testing.assert_allclose(one.image_logits, other.image_logits, atol=1e-5)


def test_readings_of_other_images_are_not_taken_over(
    manifest: Path, tmp_path: Path, bundle: Bundle, read_again: list[str]
) -> None:
    first = of_images(read(manifest, tmp_path / "run", bundle)[0], bundle)
    image, other = manifest.parent / "p0-L-CC.png", manifest.parent / "p1-L-CC.png"
    image.write_bytes(other.read_bytes())
    again = of_images(read(manifest, tmp_path / "run", bundle)[0], bundle)
    assert len(read_again) == 14
    assert again[image.name] == pytest.approx(first[other.name], abs=1e-6) != first[image.name]


def test_image_that_the_service_refuses_is_left_out_and_told(
    tmp_path: Path, bundle: Bundle
) -> None:
    """One view of a breast, and the only view of another."""
    manifest = write_cohort(tmp_path / "images", 15)
    for name in ("p0-L-MLO.png", "p1-R-CC.png"):
        (manifest.parent / name).write_bytes(png(np.zeros((300, 200), np.uint8)))
    found, left_out = read(manifest, tmp_path / "run", bundle)
    assert {Path(path).name for path in left_out} == {"p0-L-MLO.png", "p1-R-CC.png"}
    assert all("no_breast_found" in why for why in left_out.values())
    breasts = breast_cases(found, bundle.manifest)
    assert "p1-R" not in breasts.names
    alone = of_images(found, bundle)["p0-L-CC.png"]
    assert breasts.probability[breasts.names.index("p0-L")] == pytest.approx(alone, abs=1e-6)


def test_exam_in_the_middle_that_is_left_out_lengthens_the_gap(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    sessions_read = readings.Sessions.read

    def watched(self: Any, features: Any, slots: Any, days: Any) -> Any:
        seen.append(days.tolist())
        return sessions_read(self, features, slots, days)

    monkeypatch.setattr(readings.Sessions, "read", watched)
    manifest = write_cohort(tmp_path / "images", 8)
    (manifest.parent / "p7-L-CC-2022-03-11.png").write_bytes(b"no image")
    found, _ = read(manifest, tmp_path / "run", bundle)
    (series,) = (reading for reading in found if len(reading.series.exams) > 1)
    assert series.step_logits.shape[0] == len(series.series.exams) == 2
    assert [0, (series.series.dates[1] - series.series.dates[0]).days] in seen  # type: ignore[operator]


def test_too_many_unusable_images_are_an_error(
    manifest: Path, tmp_path: Path, bundle: Bundle
) -> None:
    (manifest.parent / "p0-R-CC.png").write_bytes(b"no image")
    with pytest.raises(ManifestError, match="1 of 12 images are unusable") as caught:
        read(manifest, tmp_path / "run", bundle)
    assert "p0-R-CC.png" in str(caught.value)


def test_breast_is_read_after_its_last_exam(manifest: Path, tmp_path: Path, bundle: Bundle) -> None:
    found, _ = read(manifest, tmp_path / "run", bundle)
    cases = breast_cases(found, bundle.manifest)
    series = next(reading for reading in found if len(reading.series.exams) == 3)
    after = calibrated(series.step_logits, bundle.manifest)
    assert cases.probability[cases.names.index("p3-L")] == after[-1] != after[0]
