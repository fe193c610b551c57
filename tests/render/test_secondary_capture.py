"""The overlay as Secondary Capture: what every viewer shows of a result."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from subprocess import run
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from app.bundle import DISCLAIMER, Bundle
from app.imaging.display import crop_in
from app.render.heatmap import draw_overlay, peak
from app.render.result import CAPTURE_LONG_SIDE, StudyResult
from app.render.secondary_capture import secondary_captures
from tests.pictures import breast, dicom
from tests.real_parts import require
from tests.render.readings import cbis, exam, full_field, image, of_breast, over_years, study


def capture(result: StudyResult) -> pydicom.FileDataset:
    (data,) = secondary_captures(result)
    return pydicom.dcmread(BytesIO(data))


def colourfulness(picture: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(np.ptp(picture.astype(np.int64), axis=2))


@pytest.mark.parametrize("source", [cbis, over_years])
def test_another_viewer_shows_the_overlay(source: Any, bundle: Bundle, tmp_path: Path) -> None:
    """Through dcmtk, which decodes it by the attributes of the file."""
    viewer = require("dcmj2pnm")
    result = source(bundle.manifest)
    file, shown = tmp_path / "capture.dcm", tmp_path / "capture.ppm"
    file.write_bytes(secondary_captures(result)[0])
    run([viewer, "+cl", "--write-raw-pnm", str(file), str(shown)], check=True)
    picture = cv2.imread(str(shown))
    assert picture is not None
    first = result.breasts[0]
    seen = next(i for e in first.exams for i in e.images if i.index == 0)
    assert seen.shown is not None
    box = crop_in(seen.shown, seen.crop, seen.facts.rows, seen.facts.columns)
    overlay = draw_overlay(seen.shown, seen.heatmap, box, scale=first.scale)
    rows, columns = overlay.shape[:2]
    left = (picture.shape[1] - columns) // 2
    difference = np.abs(picture[:rows, left : left + columns].astype(int) - overlay)
    assert difference.mean() < 2


@pytest.mark.parametrize("laterality", ["L", "R"])
def test_colour_is_at_the_peak(laterality: Any, bundle: Bundle) -> None:
    result = full_field(bundle.manifest, laterality)
    seen = result.breasts[0].exams[0].images[0]
    found = peak(seen.heatmap, seen.crop)
    assert found is not None
    colour = colourfulness(capture(result).pixel_array)[:600]
    left = (640 - 400) // 2
    y, x = np.unravel_index(
        int(np.argmax(cv2.blur(colour.astype(np.float32), (15, 15)))), (600, 640)
    )
    assert abs(y - found.row) < 15
    assert abs(x - left - found.column) < 15


def test_what_is_shown_is_written_below_it(bundle: Bundle) -> None:
    manifest = bundle.manifest
    comments = [
        str(pydicom.dcmread(BytesIO(data)).ImageComments)
        for data in secondary_captures(over_years(manifest))
    ]
    point = manifest.operating_point(None)
    assert point is not None
    threshold = f"{100 * point.threshold:.1f} % (operating point {point.name})"
    for text, seen, probability in zip(
        comments,
        ("Left breast CC", "Left breast MLO", "Right breast CC", "Right breast MLO"),
        ("60.0 %, at or above", "60.0 %, at or above", "15.0 %, below", "15.0 %, below"),
        strict=True,
    ):
        assert f"{seen}, 2024-03-04" in text
        assert f"Probability of malignant, this breast: {probability} {threshold}" in text
        assert f"{manifest.name} {manifest.version}" in text
        assert DISCLAIMER in text
    dataset = capture(cbis(manifest))
    assert dataset.BurnedInAnnotation == "YES"
    band = dataset.pixel_array[592:]
    assert (band.max(axis=2) > 200).mean() > 0.02, "there is no text"


@pytest.mark.parametrize("size", [(4700, 2600), (2600, 4700), (3000, 3000), (300, 200), (900, 90)])
def test_picture_is_small_and_wide_enough_for_its_text(
    size: tuple[int, int], bundle: Bundle
) -> None:
    data = dicom(breast(*size))
    dataset = capture(study(bundle.manifest, of_breast("L", exam(image(data)))))
    assert max(dataset.Rows, dataset.Columns) <= 2048
    assert dataset.Columns >= 640
    assert len(dataset.PixelData) < 1_000_000
    overlay_rows = round(size[0] * min(1, CAPTURE_LONG_SIDE / max(size)))
    text = dataset.pixel_array[overlay_rows:]
    assert text.max() > 200
    for edge in (text[:, :5], text[:, -5:], text[-5:]):
        assert edge.max() < 40, "text runs out of the picture"


def test_capture_refers_to_its_image_and_keeps_its_place(bundle: Bundle) -> None:
    first, *_, last = (
        pydicom.dcmread(BytesIO(data)) for data in secondary_captures(over_years(bundle.manifest))
    )
    assert first.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.2024.1.1"
    (series,) = first.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.2024.1"
    (instance,) = series.ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == "1.2.2024.1.1"
    assert (first.ImageLaterality, list(first.PatientOrientation)) == ("L", ["A", "L"])
    assert (last.ImageLaterality, list(last.PatientOrientation)) == ("R", ["P", "R"])


def test_view_in_the_place_of_an_orientation_is_not_taken_for_one(bundle: Bundle) -> None:
    result = cbis(bundle.manifest)
    header = result.breasts[0].exams[0].images[0].header
    assert header is not None
    assert header.PatientOrientation == "CC"
    assert not capture(result).PatientOrientation


def test_lossy_compressions_add_up(bundle: Bundle) -> None:
    result = full_field(
        bundle.manifest, "L", LossyImageCompression="01", LossyImageCompressionRatio="12",
        LossyImageCompressionMethod="ISO_15444_1",
    )  # fmt: skip
    dataset = capture(result)
    assert dataset.LossyImageCompression == "01"
    assert list(dataset.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]
    before, own = dataset.LossyImageCompressionRatio
    assert before == 12
    assert own > 3
