"""The heatmap as fractional segmentation: on the pixels of its image, and on the right ones."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation, segread
from numpy.typing import NDArray

from app.bundle import DISCLAIMER, Bundle
from app.imaging.preprocess import Crop
from app.render.heatmap import map_to_original, peak
from app.render.result import ImageResult, StudyResult
from app.render.segmentation import on_source_grid, segmentations
from tests.pictures import breast, dicom
from tests.render.readings import (
    COLUMNS,
    ROWS,
    SCALE,
    cbis,
    exam,
    full_field,
    heatmap,
    image,
    of_breast,
    over_years,
    study,
)

CROPS = [
    Crop(left=0, top=41, width=306, height=518, flipped=False),
    Crop(left=93, top=41, width=306, height=518, flipped=True),
    Crop(left=7, top=0, width=33, height=47, flipped=True),
    Crop(left=0, top=0, width=400, height=600, flipped=False),
]


def segmentation(result: StudyResult) -> Segmentation:
    (data,) = segmentations(result)
    return segread(BytesIO(data))


def images(result: StudyResult) -> list[ImageResult]:
    return [i for b in result.breasts for e in b.exams for i in e.images]


def centre(pixels: NDArray[Any]) -> tuple[float, float]:
    """Row and column of the middle of where the map is highest."""
    rows, columns = np.nonzero(pixels == pixels.max())
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("cell", [(0, 0), (8, 3), (15, 9)])
def test_highest_pixels_are_around_the_peak(crop: Crop, cell: tuple[int, int]) -> None:
    cells = heatmap(*cell)
    found = peak(cells, crop)
    assert found is not None
    whole = on_source_grid(cells, crop, SCALE, 600, 400)
    assert centre(whole) == pytest.approx((found.row, found.column), abs=0.5)


@pytest.mark.parametrize("crop", CROPS)
def test_each_pixel_has_the_value_of_its_cell(crop: Crop) -> None:
    cells = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    whole = on_source_grid(cells, crop, 255.0, 600, 400)
    matrix = np.array(map_to_original(cells, crop))
    for row, column in np.ndindex(ROWS, COLUMNS):
        x, y = matrix @ (column, row, 1)
        assert whole[round(y), round(x)] == cells[row, column]
    inside = np.zeros(whole.shape, bool)
    inside[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] = True
    assert not whole[~inside].any(), "nothing is said of what the model did not see"


@pytest.mark.parametrize(
    "source",
    [
        lambda manifest: full_field(manifest, "L"),
        lambda manifest: full_field(manifest, "R"),
        cbis,
        lambda manifest: cbis(manifest, "monochrome1"),
    ],
    ids=["left", "right, mirrored", "CBIS-DDSM", "MONOCHROME1"],
)
def test_segmentation_is_read_back_at_the_place_of_its_image(source: Any, bundle: Bundle) -> None:
    result = source(bundle.manifest)
    (seen,) = images(result)
    assert seen.header is not None
    read = segmentation(result)
    pixels = read.get_pixels_by_source_instance(
        [seen.header.SOPInstanceUID], segment_numbers=[1], rescale_fractional=True
    )[0, ..., 0]
    assert pixels.shape == (seen.facts.rows, seen.facts.columns)
    assert pixels.max() == pytest.approx(1.0)
    found = peak(seen.heatmap, seen.crop)
    assert found is not None
    assert centre(pixels) == pytest.approx((found.row, found.column), abs=0.5)
    expected = on_source_grid(seen.heatmap, seen.crop, SCALE, seen.facts.rows, seen.facts.columns)
    assert np.array_equal(np.rint(pixels * 255), expected)


def test_segment_claims_no_lesion(bundle: Bundle) -> None:
    read = segmentation(full_field(bundle.manifest, "R"))
    assert (read.SegmentationType, read.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    (segment,) = read.SegmentSequence
    assert segment.segmented_property_category.meaning == "Spatial and Relational Concept"
    assert segment.segmented_property_type.value == "130403"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (
        bundle.manifest.name,
        bundle.manifest.version,
    )
    assert (
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning == "Right"
    )
    assert DISCLAIMER in segment.SegmentDescription
    assert "Neither a probability nor the outline of a lesion" in read.ImageComments


def test_heatmaps_of_one_breast_share_one_scale(bundle: Bundle) -> None:
    result = over_years(bundle.manifest)
    files = segmentations(result)
    assert len(files) == 4
    weak = images(result)[2]
    assert weak.index == 0
    assert weak.heatmap.max() == result.breasts[0].scale
    weak.heatmap[:] *= 0.5
    assert pydicom.dcmread(BytesIO(segmentations(result)[0])).pixel_array.max() in (127, 128)


def test_heatmap_without_evidence_is_written_as_nothing(bundle: Bundle) -> None:
    nothing = image(dicom(breast()), cell=None)
    result = study(bundle.manifest, of_breast("L", exam(nothing)))
    assert not segmentation(result).pixel_array.any()


def test_full_size_segmentation_is_small(bundle: Bundle) -> None:
    data = dicom(breast(4700, 2600))
    seen = image(data)
    seen.heatmap[:] = np.random.default_rng(0).random((ROWS, COLUMNS), np.float32)
    (file,) = segmentations(study(bundle.manifest, of_breast("L", exam(seen))))
    assert len(file) < 400_000
    assert pydicom.dcmread(BytesIO(file)).pixel_array.shape == (4700, 2600)


def test_rows_are_coded_for_any_width(bundle: Bundle) -> None:
    for columns in (331, 332, 333):
        seen = image(dicom(breast(401, columns)))
        result = study(bundle.manifest, of_breast("L", exam(seen)))
        expected = on_source_grid(seen.heatmap, seen.crop, SCALE, 401, columns)
        assert np.array_equal(segmentation(result).pixel_array, expected)
